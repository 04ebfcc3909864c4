package upstream

import (
	"errors"
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
