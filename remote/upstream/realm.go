package upstream

import (
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// realms knows which token servers a registry may send callers to.
type realms struct {
	listed map[string]bool // host, and host:port
}

func newRealms(list []string) realms {
	r := realms{make(map[string]bool)}
	for _, s := range list {
		host, port, _ := splitHost(s) // was validated
		r.listed[joinHost(host, port)] = true
	}
	return r
}

// check checks the challenges of an answer that a registry is responsible for, and
// writes them anew: what was checked is what the caller will read.
func (r realms) check(registry *url.URL, h http.Header) error {
	values := h.Values("Www-Authenticate")
	if len(values) == 0 {
		return nil
	}
	all, err := parseChallenges(values)
	if err != nil {
		return &RealmError{Host: registry.Host, Why: err.Error()}
	}
	clean := make([]string, 0, len(all))
	for _, c := range all {
		realm, ok := c.get("realm")
		if ok && strings.EqualFold(c.scheme, "bearer") {
			if err := r.trust(registry, realm); err != nil {
				return err
			}
		}
		clean = append(clean, c.String())
	}
	h["Www-Authenticate"] = clean
	return nil
}

// trust returns an error if a token server is not one that the registry may name.
func (r realms) trust(registry *url.URL, realm string) error {
	u, err := url.Parse(realm)
	if err != nil || u.Host == "" || u.User != nil || u.Opaque != "" {
		return &RealmError{Host: registry.Host, Why: "its token server is no http address"}
	}
	refuse := func(why string) error { return &RealmError{Host: registry.Host, Realm: plain(u), Why: why} }
	if u.Scheme != "https" && (u.Scheme != "http" || registry.Scheme != "http") {
		return refuse("which is not reached by https")
	}
	host, port, err := splitHost(u.Host)
	if err != nil || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789.-:") != "" {
		return refuse("which is no host") // to some client a letter may be a slash
	}
	if sameOwner(strings.ToLower(registry.Hostname()), host) {
		return nil
	}
	if port == "" {
		port = "443"
		if u.Scheme == "http" {
			port = "80"
		}
	}
	if r.listed[host] || r.listed[joinHost(host, port)] {
		return nil
	}
	return refuse("which is not of the registry's domain: to allow it, list it in server.authRealms")
}

// sameOwner reports whether two hosts are below one domain that somebody can
// register. An address is below none.
func sameOwner(a, b string) bool {
	a, b = strings.TrimSuffix(a, "."), strings.TrimSuffix(b, ".")
	if a == b {
		return true
	}
	x, err := publicsuffix.EffectiveTLDPlusOne(a)
	if err != nil {
		return false
	}
	y, err := publicsuffix.EffectiveTLDPlusOne(b)
	return err == nil && x == y
}
