package upstream

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// Config is how a Client reaches registries.
type Config struct {
	// UserAgent is sent with requests that have none. Default "reprise".
	UserAgent string

	// Workers bounds the blob downloads under way, to all registries
	// together, from the request to the end of the body. Default 10.
	Workers int
	// Checks bounds the other requests under way, for each registry: HEAD,
	// manifests, lists. They never wait for a download, nor for what another
	// registry takes long to answer. Default 4 times Workers.
	Checks int
	// QueueFor is how long a request waits for one of them before it fails
	// with ErrBusy. Default 30 s.
	QueueFor time.Duration

	// Timeout bounds each of: making a connection, the TLS handshake, the wait
	// for the head of a response, and a pause in its body. There is no bound
	// on the whole. Default 1 min.
	Timeout time.Duration

	// TLS is what connections are made with, such as RootCAs; nil trusts the
	// system's. It is copied.
	TLS *tls.Config

	// AllowPrivate lists what may be dialled although it is no public address:
	// loopback, link-local, private, CGNAT, unique local, multicast, reserved,
	// or an IPv6 spelling of these. Everything else is always allowed. What
	// counts is the address that is dialled, for redirects as well. IPv4 is
	// written as such.
	AllowPrivate []netip.Prefix

	// Upstreams are registries as "scheme://host[:port]". Where host is an
	// address or localhost, whoever configured it can only have meant that: it
	// may be dialled by that very name, at that port, for requests to it. A
	// redirect from elsewhere to it needs AllowPrivate.
	Upstreams []string

	// AuthRealms lists hosts (host or host:port) that a challenge may name as
	// token server beside those of the registry's own registrable domain.
	AuthRealms []string

	// MaxBackoff bounds how long a registry's Retry-After is honoured. Default
	// 15 min.
	MaxBackoff time.Duration

	// Proxy returns the proxy of a request, as http.Transport's. Default none,
	// whatever the environment says. With one, it is the proxy's address that
	// is checked, and the proxy's own rules that keep it from private ones.
	Proxy func(*http.Request) (*url.URL, error)

	// Resolver looks up names; nil is the system's.
	Resolver *net.Resolver

	// Observe, if set, is told of each request that got to a registry. It must
	// be quick and may be called concurrently.
	Observe func(Observation)
}

// Observation is one request to one host; a redirect that is followed is another.
type Observation struct {
	Host   string // with port if that is not the default
	Method string
	Blob   bool          // a download, by Config.Workers
	Status int           // 0 if there was no answer
	Took   time.Duration // until the head of the answer
	Err    error         // if there was no answer, without secrets
}

// Validate reports values that make no sense.
func (c Config) Validate() error {
	if c.Workers < 0 || c.Checks < 0 {
		return fmt.Errorf("%d workers and %d checks for upstream requests", c.Workers, c.Checks)
	}
	if c.QueueFor < 0 || c.Timeout < 0 || c.MaxBackoff < 0 {
		return errors.New("upstream timeouts must not be negative")
	}
	for _, p := range c.AllowPrivate {
		if !p.IsValid() {
			return errors.New("allowed address prefix is not valid")
		}
		if p.Addr().Is4In6() {
			return fmt.Errorf("allowed addresses %s: IPv4 is to be written as IPv4", p)
		}
	}
	for _, u := range c.Upstreams {
		if _, err := parseUpstream(u); err != nil {
			return err
		}
	}
	for _, r := range c.AuthRealms {
		if _, _, err := splitHost(r); err != nil {
			return fmt.Errorf("token server %q: %w", r, err)
		}
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.UserAgent == "" {
		c.UserAgent = "reprise"
	}
	if c.Workers == 0 {
		c.Workers = 10
	}
	if c.Checks == 0 {
		c.Checks = 4 * c.Workers
	}
	if c.QueueFor == 0 {
		c.QueueFor = 30 * time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	if c.MaxBackoff == 0 {
		c.MaxBackoff = 15 * time.Minute
	}
	return c
}
