package upstream_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/remote/upstream"
)

// FuzzChallenges: what is written anew is read as the same, by us and, of its
// realms, by a reader that looks for nothing but the word.
func FuzzChallenges(f *testing.F) {
	for _, s := range []string{
		`Bearer realm="https://auth.example.com/token",service="registry",scope="repository:a/b:pull"`,
		`Basic realm="x", Bearer realm=https://evil.example/`, `Negotiate YWJj==, A b="\"\\"`, `A`, `A a=1,a=2`, `,,`, `A b c`,
		"A\ta = \"1\" ,\tB",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		all, err := upstream.ParseChallenges([]string{s})
		if err != nil {
			return
		}
		for _, c := range all {
			if strings.ContainsAny(c.Text, "\r\n\x00") {
				t.Fatalf("%q is written as %q", s, c.Text)
			}
			again, err := upstream.ParseChallenges([]string{c.Text})
			if err != nil || len(again) != 1 || again[0] != c {
				t.Fatalf("%q is written as %q, which reads %+v, %v", s, c.Text, again, err)
			}
			if c.Scheme == "" {
				t.Fatalf("%q: challenge without a scheme", s)
			}
		}
		var joined []string
		for _, c := range all {
			joined = append(joined, c.Text)
		}
		again, err := upstream.ParseChallenges([]string{strings.Join(joined, ", ")})
		if err != nil || len(again) != len(all) {
			t.Fatalf("%q: joined %q reads %+v, %v", s, joined, again, err)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "5", "-1", "99999999999999999999", "Fri, 27 Nov 2026 12:01:00 GMT", "Fri, 27 Nov 9999 12:01:00 GMT"} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		d := upstream.RetryAfter(s, now)
		if d < 0 || d > 1<<31*time.Second {
			t.Fatalf("%q is %s", s, d)
		}
		if _, err := http.ParseTime(s); d > 0 && err != nil && strings.Trim(strings.TrimSpace(s), "0123456789") != "" {
			t.Fatalf("%q is %s", s, d)
		}
	})
}

func FuzzQuota(f *testing.F) {
	for _, s := range []string{"100;w=21600", "100", "", "-1", "9999999999999999999;w=99999999999", "1;w=x;w=5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, w := upstream.ParseQuota(s); n < -1 || w < 0 || n == -1 && w != 0 {
			t.Fatalf("%q is %d in %s", s, n, w)
		}
	})
}
