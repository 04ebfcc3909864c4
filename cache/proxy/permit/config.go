package permit

import (
	"errors"
	"fmt"
	"time"
)

// Policy is what counts where an upstream does not decide.
type Policy int

const (
	// FailClosed refuses what the upstream does not allow now.
	FailClosed Policy = iota
	// StaleIfError allows what the upstream allowed within Config.StaleFor, if
	// it is not reached or answers 429 or 5xx.
	StaleIfError
	// Trusted allows everything and asks nobody: for a closed network in which
	// everybody may read everything.
	Trusted
)

// String returns the name of the policy in the configuration.
func (p Policy) String() string {
	switch p {
	case FailClosed:
		return "fail-closed"
	case StaleIfError:
		return "stale-if-error"
	case Trusted:
		return "trusted"
	}
	return fmt.Sprintf("Policy(%d)", int(p))
}

// ParsePolicy is the reverse of String.
func ParsePolicy(s string) (Policy, error) {
	for _, p := range []Policy{FailClosed, StaleIfError, Trusted} {
		if s == p.String() {
			return p, nil
		}
	}
	return 0, fmt.Errorf("permission policy %q is none of fail-closed, stale-if-error, trusted", s)
}

// Config is how long answers count. Equal requests at the same time are always
// one.
type Config struct {
	Policy Policy
	// StaleFor is how old an answer may be for StaleIfError. Default 10 min.
	StaleFor time.Duration
	// TTL is how long an answer counts for whole blobs; 0 asks every time.
	TTL time.Duration
	// ManifestTTL is the same for manifests. With it a tag may point to what it
	// pointed to so long ago.
	ManifestTTL time.Duration
	// RangeTTL is the same for parts of blobs, of which a lazy start reads
	// thousands. Default 1 min; negative asks every time.
	RangeTTL time.Duration
	// NegativeTTL is how long 401, 403 and 404 count, for the same credential.
	// Default 5 s; negative asks every time.
	NegativeTTL time.Duration
	// MaxEntries bounds how many answers are kept. Default 32768, which may
	// take some 30 MB.
	MaxEntries int
}

// Validate reports values that make no sense.
func (c Config) Validate() error {
	if _, err := ParsePolicy(c.Policy.String()); err != nil {
		return err
	}
	if c.StaleFor < 0 || c.TTL < 0 || c.ManifestTTL < 0 {
		return errors.New("permission times must not be negative")
	}
	if c.MaxEntries < 0 {
		return fmt.Errorf("limit of %d permissions is negative", c.MaxEntries)
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.StaleFor == 0 {
		c.StaleFor = 10 * time.Minute
	}
	if c.RangeTTL == 0 {
		c.RangeTTL = time.Minute
	}
	if c.NegativeTTL == 0 {
		c.NegativeTTL = 5 * time.Second
	}
	if c.MaxEntries == 0 {
		c.MaxEntries = 32768
	}
	return c
}
