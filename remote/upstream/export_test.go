package upstream

import (
	"net/http"
	"net/netip"
	"time"
)

// CheckAddress is what the dialer asks before it connects.
func CheckAddress(address string, allowed []netip.Prefix) error {
	return checkAddress("tcp", address, allowed)
}

// RetryAfter parses the header.
func RetryAfter(value string, now time.Time) time.Duration { return retryAfter(value, now) }

// ParseQuota parses a RateLimit header.
func ParseQuota(value string) (int64, time.Duration) { return parseQuota(value) }

// Challenge is one that was parsed.
type Challenge struct {
	Text, Scheme, Realm string
	HasRealm            bool
}

// ParseChallenges parses WWW-Authenticate headers.
func ParseChallenges(values []string) ([]Challenge, error) {
	all, err := parseChallenges(values)
	out := make([]Challenge, len(all))
	for i, c := range all {
		realm, ok := c.get("realm")
		out[i] = Challenge{c.String(), c.scheme, realm, ok}
	}
	return out, err
}

// Redact removes secrets from a text.
func Redact(text string) string { return redact(text) }

// MaxBackoffs bounds how many wishes to be left alone are remembered.
const MaxBackoffs = maxBackoffs

// Backoffs returns how many there are.
func (c *Client) Backoffs() int {
	c.backoffs.mu.Lock()
	defer c.backoffs.mu.Unlock()
	return len(c.backoffs.held)
}

// Lanes returns for how many hosts there is one now.
func (c *Client) Lanes() int {
	c.lanes.mu.Lock()
	defer c.lanes.mu.Unlock()
	return len(c.lanes.hosts)
}

// Next returns the request that a redirect asks for.
func Next(r *http.Request, location string) (*http.Request, error) {
	return next(r, &http.Response{Header: http.Header{"Location": {location}}})
}
