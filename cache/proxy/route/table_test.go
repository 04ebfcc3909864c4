package route_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/reprise-containers/reprise/cache/proxy/route"
)

// theExample is the rule of the original's documentation, with its dots as they
// are there.
var theExample = route.Rule{Regex: `^(.+).dragonfly-local.c3.zone:7000$`, Host: "$group1.myregistry.com", Scheme: "https"}

func table(t *testing.T, cfg route.Config) *route.Table {
	t.Helper()
	tab, err := route.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

type request struct{ host, ns, want string } // want: URL, "unknown" or "bad"

func check(t *testing.T, tab *route.Table, requests []request) {
	t.Helper()
	for _, r := range requests {
		to, err := tab.Resolve(r.host, r.ns)
		got := to.String()
		switch {
		case errors.Is(err, route.ErrUnknown):
			got = "unknown"
		case errors.Is(err, route.ErrBadHost):
			got = "bad"
		case err != nil:
			t.Errorf("host %q ns %q: %v", r.host, r.ns, err)
		}
		if err != nil && to != (route.Target{}) {
			t.Errorf("host %q ns %q: %v with error %v", r.host, r.ns, to, err)
		}
		if got != r.want {
			t.Errorf("host %q ns %q: %s (%v), want %s", r.host, r.ns, got, err, r.want)
		}
	}
}

func TestExample(t *testing.T) {
	tab := table(t, route.Config{
		Rules:   []route.Rule{theExample},
		Default: &route.Target{Host: "myregistry.com", Scheme: "https"},
	})
	check(t, tab, []request{
		{"eu.dragonfly-local.c3.zone:7000", "", "https://eu.myregistry.com"},
		{"EU.Dragonfly-Local.C3.Zone:7000", "", "https://eu.myregistry.com"},
		{"a.b.dragonfly-local.c3.zone:7000", "", "https://a.b.myregistry.com"},
		{"eu.dragonfly-local.c3.zone", "", "https://myregistry.com"}, // no port, no match
		{"eu.dragonfly-local.c3.zone:70001", "", "bad"},
		{"localhost:7000", "", "https://myregistry.com"},
		{"localhost:7000", "myregistry.com", "https://myregistry.com"},
		{"localhost:7000", "MyRegistry.com.", "https://myregistry.com"},
		{"localhost:7000", "myregistry.com:443", "https://myregistry.com"},
		{"localhost:7000", "myregistry.com:80", "unknown"},
		{"localhost:7000", "eu.myregistry.com", "unknown"},
		{"eu.dragonfly-local.c3.zone:7000", "eu.myregistry.com", "https://eu.myregistry.com"},
		{"eu.dragonfly-local.c3.zone:7000", "us.myregistry.com", "unknown"},
		// Trap: what the unescaped dots let through stays below the domain.
		{"euXdragonfly-localXc3Xzone:7000", "", "https://eu.myregistry.com"},
		// Trap: a group can not leave its place.
		{"evil.example/.dragonfly-local.c3.zone:7000", "", "bad"},
		{"evil.example%2f.dragonfly-local.c3.zone:7000", "", "bad"},
		{"evil.example;.dragonfly-local.c3.zone:7000", "", "bad"},
		{"[::1].x.dragonfly-local.c3.zone:7000", "", "bad"},
	})
	if w := tab.Warnings(); len(w) != 1 || !strings.Contains(w[0], "3 of its dots") {
		t.Errorf("warnings %q, want one of three dots", w)
	}
}

func TestExpansion(t *testing.T) {
	many := `^` + strings.Repeat(`(\w)`, 12) + `\.mirror$`
	for _, c := range []struct{ regex, host, from, want string }{
		{`(\w+)\.mirror`, "$group1.example.com", "eu.mirror", "https://eu.example.com"},
		{`(\w+)\.mirror`, "${group1}x.example.com", "eu.mirror", "https://eux.example.com"},
		{`(\w+)\.mirror`, "$group1x.example.com", "eu.mirror", "https://eux.example.com"},
		{`(\w+)\.mirror`, "$1x.example.com", "eu.mirror", "https://eux.example.com"},
		{`(\w+)\.mirror`, "${1}x.example.com", "eu.mirror", "https://eux.example.com"},
		{many, "$group12-$group1.example.com", "abcdefghijkl.mirror", "https://l-a.example.com"},
		{many, "$group1$group2.example.com", "abcdefghijkl.mirror", "https://ab.example.com"},
		{`(?P<zone>\w+)\.mirror`, "$zone.example.com", "eu.mirror", "https://eu.example.com"},
		{`(?P<zone>\w+)\.mirror`, "${zone}x.example.com", "eu.mirror", "https://eux.example.com"},
		{`(a)(?P<group1>\w+)\.mirror`, "$group1.example.com", "aeu.mirror", "https://eu.example.com"},
		{`(\w+)\.mirror|two`, "$group1.example.com", "two", "bad"}, // a group that took no part
		{`(\w+)\.mirror|two`, "x$group1.example.com", "two", "https://x.example.com"},
		{`one|two`, "example.com:5000", "xtwo", "unknown"}, // anchored as a whole
		{`one|two`, "example.com:5000", "two", "https://example.com:5000"},
		{`(?m)^two$`, "example.com", "two", "https://example.com"},
		{`.*`, "Example.COM:443", "x", "https://example.com"},
		{`two`, "10.0.0.1:5000", "two", "https://10.0.0.1:5000"}, // as the operator wrote it
		{`(\w+)\.mirror`, "$group1.registry.internal:5000", "eu.mirror", "https://eu.registry.internal:5000"},
	} {
		tab := table(t, route.Config{Rules: []route.Rule{{Regex: c.regex, Host: c.host}}})
		check(t, tab, []request{{c.from, "", c.want}})
	}
}

func TestInvalid(t *testing.T) {
	for _, c := range []route.Config{
		{Rules: []route.Rule{{Regex: `(`, Host: "example.com"}}},
		{Rules: []route.Rule{{Regex: `a)|(b`, Host: "example.com"}}}, // valid only in our parentheses
		{Rules: []route.Rule{{Regex: `a`, Host: ""}}},
		{Rules: []route.Rule{{Regex: ``, Host: "example.com"}}},
		{Rules: []route.Rule{{Regex: `a`, Host: "example.com", Scheme: "ftp"}}},
		{Rules: []route.Rule{{Regex: `(a)`, Host: "$group2.example.com"}}},
		{Rules: []route.Rule{{Regex: `(a)`, Host: "$host.example.com"}}},
		{Rules: []route.Rule{{Regex: `(a)`, Host: "$group.example.com"}}},
		{Rules: []route.Rule{{Regex: `(a)`, Host: "${group1.example.com"}}},
		{Rules: []route.Rule{{Regex: `(a)`, Host: "$$.example.com"}}},
		{Rules: []route.Rule{{Regex: `(a)`, Host: "$group1.example.com/path"}}},
		{Rules: []route.Rule{{Regex: `(a)`, Host: "user@$group1.example.com"}}},
		// Hosts that clients would choose.
		{Rules: []route.Rule{{Regex: `(.+)`, Host: "$group1"}}},
		{Rules: []route.Rule{{Regex: `(.+)`, Host: "$0"}}},
		{Rules: []route.Rule{{Regex: `(.+)`, Host: "registry.example.com$group1"}}},
		{Rules: []route.Rule{{Regex: `(.+)`, Host: "registry.example.com:$group1"}}},
		{Rules: []route.Rule{{Regex: `(.+)`, Host: "${group1}example.com"}}},
		{Rules: []route.Rule{{Regex: `(.+)`, Host: "$group1.com"}}},
		{Rules: []route.Rule{{Regex: `(.+)`, Host: "$group1.co.uk"}}},
		{Rules: []route.Rule{{Regex: `(.+)`, Host: "$group1.github.io"}}},
		{Rules: []route.Rule{{Regex: `(.+)`, Host: "registry.$group1"}}},
		{Registries: map[string]route.Target{"a/b": {}}},
		{Registries: map[string]route.Target{"ghcr.io": {Host: "x y"}}},
		{Registries: map[string]route.Target{"ghcr.io": {}, "GHCR.io": {Host: "mirror.example.com"}}},
		{Default: &route.Target{Host: ""}},
		{Default: &route.Target{Host: "0x7f.1"}},
		{Default: &route.Target{Host: "example.com", Scheme: "file"}},
	} {
		if _, err := route.New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		} else if strings.Contains(err.Error(), "%!") {
			t.Error(err)
		}
	}
}

func TestNamespaces(t *testing.T) {
	tab := table(t, route.Config{Registries: map[string]route.Target{
		"docker.io":          {},
		"ghcr.io":            {},
		"plain.example:5000": {Scheme: "http"},
		"gcr.io":             {Host: "mirror.example.com"},
		"192.168.1.1:5000":   {Scheme: "http"},
	}})
	check(t, tab, []request{
		{"cache:7000", "docker.io", "https://registry-1.docker.io"},
		{"cache:7000", "DOCKER.io", "https://registry-1.docker.io"},
		{"cache:7000", "ghcr.io", "https://ghcr.io"},
		{"cache:7000", "gcr.io", "https://mirror.example.com"},
		{"cache:7000", "plain.example:5000", "http://plain.example:5000"},
		{"cache:7000", "192.168.1.1:5000", "http://192.168.1.1:5000"},
		{"cache:7000", "[::ffff:192.168.1.1]:5000", "http://192.168.1.1:5000"}, // one spelling for each
		{"[::1]:7000", "ghcr.io", "https://ghcr.io"},
		{"ghcr.io", "", "https://ghcr.io"},
		{"ghcr.io", "docker.io", "https://registry-1.docker.io"}, // ns decides
		{"cache:7000", "", "unknown"},
		// A name is looked up and never dialled.
		{"cache:7000", "quay.io", "unknown"},
		{"ghcr.io", "quay.io", "unknown"},
		{"cache:7000", "evil.example", "unknown"},
		{"cache:7000", "127.0.0.1", "unknown"},
		{"cache:7000", "127.0.0.1:7000", "unknown"},
		{"cache:7000", "169.254.169.254", "unknown"},
		{"cache:7000", "[::1]:3000", "unknown"},
		{"cache:7000", "[::ffff:169.254.169.254]", "unknown"},
		{"cache:7000", "localhost", "unknown"},
		{"cache:7000", "plain.example:5001", "unknown"},
		{"cache:7000", "plain.example", "unknown"},
		{"cache:7000", "ghcr.io.evil.example", "unknown"},
		{"cache:7000", "xghcr.io", "unknown"},
		{"127.0.0.1", "", "unknown"},
		{"cache:7000", "ghcr.io/../evil.example", "bad"},
		{"cache:7000", "ghcr.io@evil.example", "bad"},
		{"cache:7000", "http://ghcr.io", "bad"},
		{"cache:7000", "ghcr.io?x", "bad"},
		{"cache:7000", "ghcr.io#x", "bad"},
		{"cache:7000", `ghcr.io\evil.example`, "bad"},
		{"cache:7000", "ghcr.io\x00", "bad"},
		{"cache:7000", "ghcr.io\r\nX: y", "bad"},
		{"cache:7000", " ghcr.io", "bad"},
		{"cache:7000", "ghcr.io:", "bad"},
		{"cache:7000", "ghcr.io:0443", "bad"},
		{"cache:7000", "ghcr.io:99999", "bad"},
		{"cache:7000", "ghcr..io", "bad"},
		{"cache:7000", ".ghcr.io", "bad"},
		{"cache:7000", "-ghcr.io", "bad"},
		{"cache:7000", "ghcr%2eio", "bad"},
		{"cache:7000", "ghcr。io", "bad"}, // a dot to IDNA
		{"cache:7000", "ⓖhcr.io", "bad"},
		{"cache:7000", "[::1].x", "bad"},
		{"cache:7000", "[fe80::1%25lo]", "bad"},
		{"cache:7000", "[127.0.0.1]", "bad"},
		{"cache:7000", "::1", "bad"},
		{"cache:7000", strings.Repeat("a.", 130) + "io", "bad"},
		{"cache:7000", strings.Repeat("a", 64) + ".io", "bad"},
		// Other spellings of 127.0.0.1.
		{"cache:7000", "0x7f.1", "bad"},
		{"cache:7000", "0x7f000001", "bad"},
		{"cache:7000", "2130706433", "bad"},
		{"cache:7000", "017700000001", "bad"},
		{"cache:7000", "0177.0.0.1", "bad"},
		{"cache:7000", "127.1", "bad"},
		{"cache:7000", "127.0.0.0x1", "bad"},
		{"cache:7000", "127.0.0.1.", "bad"},
		{"", "", "bad"},
		{"a b", "ghcr.io", "bad"},
	})
}

func TestOpenRule(t *testing.T) {
	tab := table(t, route.Config{
		Rules: []route.Rule{{Regex: `^(.+)\.mirror:7000$`, Host: "$group1"}},
		Registries: map[string]route.Target{
			"docker.io": {}, "gcr.io": {Host: "corp.example.com", Scheme: "http"}, "127.0.0.1": {},
		},
	})
	check(t, tab, []request{
		{"docker.io.mirror:7000", "", "https://registry-1.docker.io"},
		{"gcr.io.mirror:7000", "", "http://corp.example.com"},
		{"evil.example.mirror:7000", "", "unknown"},
		{"corp.example.com.mirror:7000", "", "unknown"}, // by https it is another
		{"127.0.0.1.mirror:7000", "", "bad"},
		{"169.254.169.254.mirror:7000", "", "bad"},
		{"0x7f.1.mirror:7000", "", "bad"},
		{"localhost.mirror:7000", "", "unknown"},
	})
}

func TestClosedByDefault(t *testing.T) {
	check(t, table(t, route.Config{}), []request{
		{"cache:7000", "", "unknown"},
		{"docker.io", "", "unknown"},
		{"cache:7000", "docker.io", "unknown"},
	})
	check(t, table(t, route.Config{Default: &route.Target{Host: "docker.io"}}), []request{
		{"cache:7000", "", "https://registry-1.docker.io"},
		{"cache:7000", "docker.io", "https://registry-1.docker.io"},
		{"cache:7000", "registry-1.docker.io", "https://registry-1.docker.io"},
		{"cache:7000", "ghcr.io", "unknown"}, // never the default's content under another's name
	})
}

func TestWarnings(t *testing.T) {
	for regex, want := range map[string]int{
		`^(.+)\.example\.com$`:    0,
		`^(.*)\.example\.com$`:    0,
		`^(.{2,9})\.example:70$`:  0,
		`^([a-z.]+)\.example$`:    0,
		`^(.+).example$`:          1,
		`^.$`:                     1,
		`(.+)\.example`:           1,
		`(.+).example`:            2,
		`^(eu|us).example$`:       1,
		`^(?:(a.b)+)\.example$`:   1,
		`^eu\.dragonfly\.zone:7$`: 0,
	} {
		tab := table(t, route.Config{Rules: []route.Rule{{Regex: regex, Host: "x.example.com"}}})
		if got := tab.Warnings(); len(got) != want {
			t.Errorf("%s: %d warnings %q, want %d", regex, len(got), got, want)
		}
	}
}

func TestTargets(t *testing.T) {
	tab := table(t, route.Config{
		Rules: []route.Rule{
			{Regex: `^(.+)\.mirror$`, Host: "$group1.example.com"}, {Regex: `^x$`, Host: "10.0.0.1:5000", Scheme: "http"},
		},
		Registries: map[string]route.Target{"docker.io": {}, "b.example:443": {}},
		Default:    &route.Target{Host: "localhost:5000", Scheme: "http"},
	})
	want := "[https://b.example https://registry-1.docker.io http://localhost:5000 http://10.0.0.1:5000]"
	if got := fmt.Sprint(tab.Targets()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestMemo: what was answered is answered again, also when clients make up more names
// than are remembered, by many at once.
func TestMemo(t *testing.T) {
	tab := table(t, route.Config{Rules: []route.Rule{theExample}, Registries: map[string]route.Target{"docker.io": {}}})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 1000 {
				zone := fmt.Sprint("z", i)
				check(t, tab, []request{
					{zone + ".dragonfly-local.c3.zone:7000", "", "https://" + zone + ".myregistry.com"},
					{"cache:7000", "docker.io", "https://registry-1.docker.io"},
					{"cache:7000", "", "unknown"},
					{"docker.io", "", "https://registry-1.docker.io"},
					{"docker.io", "quay.io", "unknown"},
				})
			}
		})
	}
	wg.Wait()
	if n := testing.AllocsPerRun(100, func() { tab.Resolve("cache:7000", "docker.io") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
