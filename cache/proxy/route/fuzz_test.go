package route_test

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cache/proxy/route"
)

// FuzzResolve: whatever Host and ns say, the answer is a registry of the
// configuration or a name below a domain of it.
func FuzzResolve(f *testing.F) {
	tab, err := route.New(route.Config{
		Rules: []route.Rule{
			{Regex: `^(.+).mirror.example:7000$`, Host: "$group1.myregistry.com"},
			{Regex: `^(.+)\.any\.example$`, Host: "$group1"},
		},
		Registries: map[string]route.Target{"docker.io": {}, "local:5000": {Host: "10.1.2.3:5000", Scheme: "http"}},
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{
		"", "eu.mirror.example:7000", "x/y.mirror.example:7000", "[::1].mirror.example:7000", "docker.io.any.example",
		"127.0.0.1.any.example", "0x7f.1", "local:5000", "a:b@c", "%00", "ⓖ.mirror.example:7000",
	} {
		f.Add(s, "")
		f.Add("cache:7000", s)
	}
	f.Fuzz(func(t *testing.T, host, ns string) {
		to, err := tab.Resolve(host, ns)
		if err != nil {
			if !errors.Is(err, route.ErrUnknown) && !errors.Is(err, route.ErrBadHost) {
				t.Fatal(err)
			}
			return
		}
		switch to.String() {
		case "https://registry-1.docker.io", "http://10.1.2.3:5000":
			return
		}
		u, err := url.Parse(to.String() + "/v2/")
		if err != nil {
			t.Fatal(err)
		}
		if u.Host != to.Host || u.User != nil || u.Port() != "" || !strings.HasSuffix(u.Hostname(), ".myregistry.com") {
			t.Fatalf("host %q ns %q lead to %s", host, ns, to)
		}
		if _, err := netip.ParseAddr(u.Hostname()); err == nil || to.Host != strings.ToLower(to.Host) {
			t.Fatalf("host %q ns %q lead to %s", host, ns, to)
		}
	})
}

// FuzzRule: a rule that is accepted leads nowhere but below a domain of its own.
func FuzzRule(f *testing.F) {
	for _, r := range [][3]string{
		{`^(.+)\.mirror$`, "$group1.example.com", "eu.mirror"},
		{`(a)(b)?`, "${2}x$1.example.com:5000", "a"},
		{`(?P<zone>.*)`, "$zone", "evil.example"},
		{`(.*)`, "$group1.co.uk", "evil"},
		{`a|b`, "$$", "b"},
	} {
		f.Add(r[0], r[1], r[2])
	}
	f.Fuzz(func(t *testing.T, regex, to, host string) {
		if len(regex) > 200 { // what it takes to compile grows with repeats
			return
		}
		tab, err := route.New(route.Config{Rules: []route.Rule{{Regex: regex, Host: to}}})
		if err != nil {
			return
		}
		got, err := tab.Resolve(host, "")
		if err != nil {
			if !errors.Is(err, route.ErrUnknown) && !errors.Is(err, route.ErrBadHost) {
				t.Fatal(err)
			}
			return
		}
		if !strings.Contains(to, "$") {
			return
		}
		tail := strings.TrimSuffix(strings.ToLower(to[strings.LastIndexByte(to, '$'):]), ".")
		tail = tail[strings.IndexByte(tail, '.'):] // there is one, or the rule were open
		want, _, _ := strings.Cut(tail, ":")
		name, _, _ := strings.Cut(got.Host, ":")
		if !strings.HasSuffix(name, strings.TrimSuffix(want, ".")) || strings.Count(want, ".") < 2 {
			t.Fatalf("%q %q: %q leads to %s", regex, to, host, got)
		}
	})
}
