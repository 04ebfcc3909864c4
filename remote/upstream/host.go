package upstream

import (
	"errors"
	"net"
	"net/url"
	"strings"
)

// splitHost splits host[:port], and lower-cases the host.
func splitHost(s string) (host, port string, err error) {
	u, err := url.Parse("//" + s)
	if err != nil || u.Host != s || u.Hostname() == "" {
		return "", "", errors.New("is not a host or host:port")
	}
	return strings.ToLower(u.Hostname()), u.Port(), nil
}

// joinHost is the reverse of splitHost.
func joinHost(host, port string) string {
	if port == "" {
		return host
	}
	return net.JoinHostPort(host, port)
}

// hostOf returns the host of a URL in its one spelling, with the port if that is
// not the default.
func hostOf(u *url.URL) string {
	port := u.Port()
	if u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" {
		port = ""
	}
	return joinHost(strings.ToLower(u.Hostname()), port)
}
