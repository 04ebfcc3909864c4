package upstream_test

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/reprise-containers/reprise/remote/upstream"
)

// TestPrivateAddresses: what is not public is not dialled, however it is spelled and
// whoever leads there.
func TestPrivateAddresses(t *testing.T) {
	kinds := map[string]string{
		"127.0.0.1": "loopback", "127.9.9.9": "loopback", "0.0.0.0": "unspecified", "0.1.2.3": "unspecified",
		"10.0.0.1": "private", "172.16.0.1": "private", "172.31.255.255": "private", "192.168.1.1": "private",
		"169.254.169.254": "link-local", "100.64.0.1": "carrier-grade NAT", "224.0.0.1": "multicast",
		"255.255.255.255": "reserved", "240.0.0.1": "reserved", "192.0.0.8": "reserved",
		"192.0.2.1": "documentation", "198.18.0.1": "benchmarking",
		"::1": "loopback", "::": "unspecified", "fe80::1": "link-local", "fc00::1": "private", "fd12::1": "private",
		"ff02::1": "multicast", "fec0::1": "site-local", "2001:db8::1": "documentation",
		"::127.0.0.1": "reserved", "2001:0:1::1": "reserved", // IPv4-compatible, Teredo
		"::ffff:127.0.0.1": "loopback", "::ffff:10.0.0.1": "private", "::ffff:169.254.169.254": "link-local",
		"64:ff9b::7f00:1": "loopback", "64:ff9b::a00:1": "private", // NAT64
		"2002:7f00:1::": "loopback", "2002:a9fe:a9fe::1": "link-local", // 6to4
	}
	table := map[string][][]string{}
	for text := range kinds {
		if a := netip.MustParseAddr(text); !a.Is4In6() { // an AAAA record may hold such, but Go's resolver drops it
			table[name(text)+"."] = [][]string{{text}}
		}
	}
	c := client(t, upstream.Config{
		Resolver:     names(t, table),
		AllowPrivate: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
	})
	expect := func(u, kind string) {
		t.Helper()
		_, _, err := do(t, c, "GET", u, "")
		a, ok := errors.AsType[*upstream.AddressError](err)
		if !ok || a.Kind != kind || !strings.Contains(err.Error(), "server.allowAddresses") {
			t.Errorf("%s: %v, want refusal of a %s address", u, err, kind)
		}
	}
	for text, kind := range kinds {
		a := netip.MustParseAddr(text)
		expect((&url.URL{Scheme: "http", Host: netip.AddrPortFrom(a, 81).String(), Path: "/v2/"}).String(), kind)
		if !a.Is4In6() {
			expect("http://"+name(text)+":81/v2/", kind)
		}
	}
	if s := c.Stats(); s.Addresses != s.Requests || s.Errors != s.Requests {
		t.Errorf("%+v", s)
	}
}

func name(addr string) string {
	return "host-" + strings.NewReplacer(".", "-", ":", "-").Replace(addr) + "-x.example"
}

// TestSpellings: other ways to write an address lead nowhere, or to a refusal.
func TestSpellings(t *testing.T) {
	var asked atomic.Int64
	u, _ := url.Parse(serve(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	c := client(t, upstream.Config{
		Resolver:     names(t, nil),
		AllowPrivate: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
	})
	for _, host := range []string{
		"127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001",
		"localhost", "LOCALHOST", "0", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:0001]",
	} {
		if _, _, err := do(t, c, "GET", "http://"+host+":"+u.Port()+"/v2/", ""); err == nil {
			t.Errorf("%s is dialled", host)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// TestPublicAddresses: nothing is refused that anybody may reach.
func TestPublicAddresses(t *testing.T) {
	for _, text := range []string{
		"1.1.1.1", "9.255.255.255", "11.0.0.0", "172.15.255.255", "172.32.0.0", "100.63.255.255", "100.128.0.0",
		"169.253.255.255", "192.0.1.1", "198.17.255.255", "198.20.0.0", "223.255.255.255", "128.0.0.1",
		"2606:4700::1111", "2a00:1450::1", "64:ff9b::101:101", "2002:101:101::1", "::ffff:1.1.1.1",
	} {
		if err := upstream.CheckAddress(netip.AddrPortFrom(netip.MustParseAddr(text), 443).String(), nil); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestAllowed: what is listed is dialled, in whatever spelling, and nothing beside
// it.
func TestAllowed(t *testing.T) {
	list := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32")}
	for text, ok := range map[string]bool{
		"10.1.2.3": true, "10.2.0.1": false, "::ffff:10.1.2.3": true, "::ffff:10.2.2.3": false,
		"fd00:1::5": true, "fd00:2::5": false, "64:ff9b::a01:203": false, "127.0.0.1": false,
	} {
		err := upstream.CheckAddress(netip.AddrPortFrom(netip.MustParseAddr(text), 443).String(), list)
		if (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, bad := range []netip.Prefix{{}, netip.MustParsePrefix("::ffff:10.0.0.0/104")} {
		if _, err := upstream.New(upstream.Config{AllowPrivate: []netip.Prefix{bad}}); err == nil {
			t.Errorf("prefix %v is accepted", bad)
		}
	}
}

// TestRebinding: a name that was good is looked at again when it is dialled again.
func TestRebinding(t *testing.T) {
	var asked atomic.Int64
	u, _ := url.Parse(serve(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Connection", "close")
	}))
	c := client(t, upstream.Config{Resolver: names(t, map[string][][]string{
		"registry.example.": {{"127.0.0.1"}, {"127.0.0.2"}},
		"both.example.":     {{"127.0.0.2", "127.0.0.1"}},
	})})
	at := "http://registry.example:" + u.Port() + "/v2/"
	if _, _, err := do(t, c, "GET", at, ""); err != nil {
		t.Fatal(err)
	}
	_, _, err := do(t, c, "GET", at, "")
	if a, ok := errors.AsType[*upstream.AddressError](err); !ok || a.Addr.String() != "127.0.0.2" {
		t.Errorf("second time: %v", err)
	}
	if _, _, err := do(t, c, "GET", "http://both.example:"+u.Port()+"/v2/", ""); err != nil {
		t.Errorf("a name with one good address: %v", err)
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("%d requests arrived, want 2", n)
	}
}

// TestRedirectToPrivate: a registry does not lead into the network it is reached
// from.
func TestRedirectToPrivate(t *testing.T) {
	var to atomic.Value
	at := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", to.Load().(string))
		w.WriteHeader(307)
	})
	c := client(t, upstream.Config{Resolver: names(t, map[string][][]string{"inside.example.": {{"10.0.0.1"}}})})
	for _, target := range []string{
		"http://127.0.0.2/", "http://169.254.169.254/latest/meta-data/", "http://[::1]/", "http://inside.example/",
		"http://[::ffff:10.0.0.1]/", "//127.0.0.2:22/",
	} {
		to.Store(target)
		_, _, err := do(t, c, "GET", at+"/v2/a/blobs/x", "")
		if _, ok := errors.AsType[*upstream.AddressError](err); !ok {
			t.Errorf("%s: %v", target, err)
		}
	}
}

// TestUpstreams: an upstream that is configured by its address is dialled at that,
// and nothing beside it is, least of all because it says so.
func TestUpstreams(t *testing.T) {
	var to atomic.Value
	var trapped atomic.Int64
	trap, _ := url.Parse(serve(t, func(http.ResponseWriter, *http.Request) { trapped.Add(1) }))
	home, _ := url.Parse(serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			w.Header().Set("Location", to.Load().(string))
			w.WriteHeader(307)
		}
	}))
	none := []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	r := names(t, map[string][][]string{"registry.example.": {{"127.0.0.1"}}, "localhost.": {{"127.0.0.1"}}})
	for _, name := range []string{"127.0.0.1", "localhost"} {
		base := "http://" + name + ":" + home.Port()
		c := client(t, upstream.Config{AllowPrivate: none, Resolver: r, Upstreams: []string{base, "https://registry.example"}})
		if _, _, err := do(t, c, "GET", base+"/v2/", ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		to.Store("/v2/")
		if _, _, err := do(t, c, "GET", base+"/away", ""); err != nil {
			t.Errorf("%s, redirected to itself: %v", name, err)
		}
		refused := func(u string) {
			t.Helper()
			_, _, err := do(t, c, "GET", u, "")
			if _, ok := errors.AsType[*upstream.AddressError](err); !ok {
				t.Errorf("%s: %v", u, err)
			}
		}
		refused("http://" + name + ":" + trap.Port() + "/")
		refused("http://registry.example:" + home.Port() + "/") // another name for it
		refused("http://127.0.0.2:" + home.Port() + "/")
		for _, host := range []string{"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "127.0.0.2"} {
			to.Store("http://" + host + ":" + trap.Port() + "/")
			refused(base + "/away")
		}
		// Not by a way round either.
		to.Store("http://registry.example:" + home.Port() + "/")
		refused(base + "/away")
	}
	if n := trapped.Load(); n != 0 {
		t.Errorf("%d requests arrived where none should", n)
	}
	away := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, home.String()+"/v2/", http.StatusTemporaryRedirect)
	})
	c := client(t, upstream.Config{AllowPrivate: none, Upstreams: []string{away, home.String()}})
	_, _, err := do(t, c, "GET", away+"/", "")
	if _, ok := errors.AsType[*upstream.AddressError](err); !ok {
		t.Errorf("from one upstream to another: %v", err)
	}
	for _, bad := range []string{"127.0.0.1:5000", "ftp://x", "http://", "http://me:word@x"} {
		if _, err := upstream.New(upstream.Config{Upstreams: []string{bad}}); err == nil || strings.Contains(err.Error(), "word") {
			t.Errorf("upstream %q: %v", bad, err)
		}
	}
}

// TestNoEnvironmentProxy: a proxy is dialled if it is configured, not if somebody
// set a variable.
func TestNoEnvironmentProxy(t *testing.T) {
	var proxied atomic.Int64
	proxy := serve(t, func(http.ResponseWriter, *http.Request) { proxied.Add(1) })
	for _, v := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(v, proxy)
	}
	u, _ := url.Parse(serve(t, func(http.ResponseWriter, *http.Request) {}))
	r := names(t, map[string][][]string{"registry.example.": {{"127.0.0.1"}}})
	at := "http://registry.example:" + u.Port() + "/v2/"
	if _, _, err := do(t, client(t, upstream.Config{Resolver: r}), "GET", at, ""); err != nil || proxied.Load() != 0 {
		t.Errorf("%v, %d requests to the proxy", err, proxied.Load())
	}
	via := func(*http.Request) (*url.URL, error) { return url.Parse(proxy) }
	if _, _, err := do(t, client(t, upstream.Config{Resolver: r, Proxy: via}), "GET", at, ""); err != nil || proxied.Load() != 1 {
		t.Errorf("configured: %v, %d requests to the proxy", err, proxied.Load())
	}
}
