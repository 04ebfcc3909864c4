package cachechain

import (
	"net"
	"net/netip"
	"strings"

	"github.com/reprise-containers/reprise/cmd/internal/cacheconfig"
)

// allowed returns the networks that may be dialled although they are not public:
// those that are listed, and the addresses that upstreams are configured by, which
// whoever wrote the configuration can only have meant. Names say nothing about where
// they lead, except localhost.
func allowed(s cacheconfig.Server) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range s.AllowAddresses {
		p, err := cacheconfig.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	hosts := []string{s.DefaultBackend.Host}
	for _, r := range s.UpstreamRules {
		if !strings.Contains(r.Host, "$") {
			hosts = append(hosts, r.Host)
		}
	}
	for name, r := range s.Registries {
		if r.Host == "" {
			r.Host = name
		}
		hosts = append(hosts, r.Host)
	}
	for _, h := range hosts {
		out = append(out, literal(h)...)
	}
	return out, nil
}

// literal returns the addresses that host, with or without a port, is.
func literal(host string) []netip.Prefix {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return nil
	}
	a = a.Unmap()
	return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
}
