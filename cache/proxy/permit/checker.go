package permit

import (
	"context"
	"errors"
	"net/http"
)

// HeadFunc sends HEAD for a resource with a credential, and does not follow
// redirects. Its error is for callers to see: it must not hold secrets.
type HeadFunc = func(ctx context.Context, r Resource, auth Secret) (*http.Response, error)

// Checker asks upstreams. All methods may be called concurrently.
type Checker struct {
	cfg  Config
	head HeadFunc
}

// New returns a Checker; cfg must be valid. See Head for the usual head.
func New(cfg Config, head HeadFunc) *Checker {
	return &Checker{cfg: cfg.withDefaults(), head: head}
}

// Head makes a HeadFunc of what sends requests, such as upstream.Client.Do.
func Head(do func(*http.Request) (*http.Response, error)) HeadFunc { return nil }

// Check returns what the upstream of r says to auth's owner. The error is head's if
// the upstream did not answer and the policy does not allow an earlier answer, or
// the context's.
func (c *Checker) Check(ctx context.Context, r Resource, auth Secret, class Class) (Decision, error) {
	return Decision{}, errors.New("not there yet")
}

// Denied tells that the upstream answered status, 401, 403 or 404, to a GET for r
// by auth's owner: what was allowed before is not any more.
func (c *Checker) Denied(r Resource, auth Secret, status int) {}

// Forget drops the answers for which match returns true, nil for all, and returns
// how many. match must not call the Checker.
func (c *Checker) Forget(match func(Resource) bool) int { return 0 }

// Stats returns what was counted.
func (c *Checker) Stats() Stats { return Stats{} }
