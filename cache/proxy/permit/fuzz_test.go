package permit_test

import (
	"testing"

	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

// FuzzExpiry: what a credential says of itself is at most a time.
func FuzzExpiry(f *testing.F) {
	for _, s := range []permit.Secret{
		"", "Bearer", "Bearer a.b.c", "Basic dTpw", token("1"), token("1e999"), token("-1"), token(`"x"`), token("[1]"), "Basic " + token("5"),
	} {
		f.Add(string(s))
	}
	f.Fuzz(func(t *testing.T, s string) {
		if at, ok := permit.Expiry(permit.Secret(s)); ok && (at.Unix() < 0 || at.Year() > 3000) {
			t.Fatalf("%q ends at %v", s, at)
		}
	})
}
