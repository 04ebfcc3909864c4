package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"syscall"
	"time"
)

// dialer makes connections, and refuses addresses by what they are, not by what a
// name was said to lead to before: the check is between the look-up and the
// connection, for each address tried.
type dialer struct {
	cfg Config
	// implied are addresses that may be dialled as well, by the host:port that
	// is asked for.
	implied map[string][]netip.Prefix
}

// homeDialer is for requests to registries, awayDialer for where they redirect to.
func homeDialer(cfg Config) dialer {
	d := awayDialer(cfg)
	for _, text := range cfg.Upstreams {
		if u, err := parseUpstream(text); err == nil { // was validated
			d.implied[dialled(u)] = impliedBy(u.Hostname())
		}
	}
	return d
}

func awayDialer(cfg Config) dialer { return dialer{cfg, make(map[string][]netip.Prefix)} }

// parseUpstream parses one of Config.Upstreams.
func parseUpstream(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, errors.New("upstream is no http address")
	}
	return u, nil
}

// dialled returns what net/http asks a dialer for.
func dialled(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "http":
		port = "80"
	default:
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// impliedBy returns the addresses that a host means by itself.
func impliedBy(host string) []netip.Prefix {
	if host == "localhost" {
		return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	if a, err := netip.ParseAddr(host); err == nil {
		a = a.Unmap().WithZone("")
		return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
	}
	return nil
}

// DialContext is a transport.DialFunc.
func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	allowed := slices.Concat(d.cfg.AllowPrivate, d.implied[address])
	n := net.Dialer{
		Timeout:   d.cfg.Timeout,
		KeepAlive: 30 * time.Second,
		Resolver:  d.cfg.Resolver,
		ControlContext: func(_ context.Context, network, address string, _ syscall.RawConn) error {
			return checkAddress(network, address, allowed)
		},
	}
	return n.DialContext(ctx, network, address)
}

func checkAddress(network, address string, allowed []netip.Prefix) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("checking %s address %q: %w", network, address, err)
	}
	addr := to.Addr().Unmap().WithZone("")
	kind := classify(addr)
	if kind == "" {
		return nil
	}
	for _, p := range allowed {
		if p.Contains(addr) {
			return nil
		}
	}
	return &AddressError{Addr: addr, Kind: kind}
}

// special are ranges without an own method of netip.Addr that are not of the public
// Internet: the IANA special-purpose registries.
var special = []struct {
	prefix netip.Prefix
	kind   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT"},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), "reserved"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"}, // and broadcast
	{netip.MustParsePrefix("::/96"), "reserved"},       // IPv4-compatible
	{netip.MustParsePrefix("64:ff9b:1::/48"), "local translation"},
	{netip.MustParsePrefix("100::/64"), "discard"},
	{netip.MustParsePrefix("2001::/23"), "reserved"}, // Teredo, ORCHID, benchmarking
	{netip.MustParsePrefix("2001:db8::/32"), "documentation"},
	{netip.MustParsePrefix("3fff::/20"), "documentation"},
	{netip.MustParsePrefix("5f00::/16"), "reserved"},
	{netip.MustParsePrefix("fec0::/10"), "site-local"},
}

// translated are the IPv6 ranges that hold an IPv4 address, which a gateway takes
// packets to, at a byte.
var translated = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12}, // NAT64
	{netip.MustParsePrefix("2002::/16"), 2},     // 6to4
}

// classify returns what an address is if it is no public one, else "".
func classify(addr netip.Addr) string {
	switch {
	case !addr.IsValid():
		return "missing"
	case addr.IsUnspecified():
		return "unspecified"
	case addr.IsLoopback():
		return "loopback"
	case addr.IsLinkLocalUnicast():
		return "link-local"
	case addr.IsMulticast():
		return "multicast"
	case addr.IsPrivate():
		return "private"
	}
	for _, t := range translated {
		if t.prefix.Contains(addr) {
			b := addr.As16()
			return classify(netip.AddrFrom4([4]byte(b[t.at : t.at+4])))
		}
	}
	for _, s := range special {
		if s.prefix.Contains(addr) {
			return s.kind
		}
	}
	return ""
}
