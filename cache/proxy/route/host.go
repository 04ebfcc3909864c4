package route

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// host is a validated host[:port] in lower case.
type host struct {
	name string // without brackets; may be the text of an IP address
	addr netip.Addr
	port string // may be empty
}

// parseHost parses a DNS name or an IP address with or without port. Other
// spellings of addresses than the usual ones, which some resolvers take (0x7f.1,
// 2130706433, 127.1), are no names.
func parseHost(s string) (host, error) {
	name, port, err := cutPort(s)
	if err != nil {
		return host{}, err
	}
	if strings.HasPrefix(name, "[") {
		addr, err := netip.ParseAddr(strings.TrimSuffix(name[1:], "]"))
		if err != nil || !strings.HasSuffix(name, "]") || !addr.Is6() || addr.Zone() != "" {
			return host{}, bad(s)
		}
		addr = addr.Unmap()
		return host{name: addr.String(), addr: addr, port: port}, nil
	}
	if addr, err := netip.ParseAddr(name); err == nil && addr.Is4() {
		return host{name: addr.String(), addr: addr, port: port}, nil
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if !isName(name) {
		return host{}, bad(s)
	}
	return host{name: name, port: port}, nil
}

func bad(s string) error {
	if len(s) > 300 {
		s = s[:300]
	}
	return fmt.Errorf("%w: %q", ErrBadHost, s)
}

// cutPort cuts off the port, which is a number that fits.
func cutPort(s string) (name, port string, err error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.IndexByte(s[i:], ']') >= 0 {
		return s, "", nil
	}
	name, port = s[:i], s[i+1:]
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port != strconv.FormatUint(n, 10) {
		return "", "", bad(s)
	}
	return name, port, nil
}

// isName reports whether s is a DNS name of a host, in lower case and without the
// dot at the end.
func isName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if !isLabel(l) {
			return false
		}
	}
	return !isNumber(labels[len(labels)-1])
}

func isLabel(l string) bool {
	if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	for _, c := range []byte(l) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// isNumber reports whether a name that ends with the label would be read as an
// address by inet_aton.
func isNumber(l string) bool {
	if rest, ok := strings.CutPrefix(l, "0x"); ok {
		return strings.Trim(rest, "0123456789abcdef") == ""
	}
	return strings.Trim(l, "0123456789") == ""
}

// String returns the host in its one spelling.
func (h host) String() string {
	name := h.name
	if h.addr.Is6() {
		name = "[" + name + "]"
	}
	if h.port == "" {
		return name
	}
	return name + ":" + h.port
}

// target makes a Target of it.
func (h host) target(scheme string) Target {
	if scheme == "https" && h.port == "443" || scheme == "http" && h.port == "80" {
		h.port = ""
	}
	return Target{Scheme: scheme, Host: h.String()}
}

// parseScheme returns the scheme of a Target.
func parseScheme(s string) (string, error) {
	switch s = strings.ToLower(s); s {
	case "":
		return "https", nil
	case "http", "https":
		return s, nil
	}
	return "", fmt.Errorf("scheme %q is neither http nor https", s)
}
