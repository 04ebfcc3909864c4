package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/reprise-containers/reprise/remote/blob"
)

// Config says how registries are reached. The zero value is ready for use.
type Config struct {
	// HostsDir is a directory of containerd host configurations
	// (<host>/hosts.toml, or certificates): mirrors, TLS, plain http,
	// headers. Empty, or without an entry for a host: that host itself, by
	// https. Changes are noticed within ten seconds.
	HostsDir string

	// DockerConfig is a docker config.json with credentials or credential
	// helpers, read whenever credentials are needed; a missing file means
	// anonymous access. Default $DOCKER_CONFIG/config.json, else
	// ~/.docker/config.json. Keys may be a host or, as in overlaybd's
	// credential file, host/path; the longest matching one wins.
	DockerConfig string
	// Credentials, if not nil, is asked instead. host is that of the
	// request ("registry-1.docker.io" for Docker Hub). No user and no secret
	// is anonymous; a secret without a user is an identity token.
	Credentials func(host string) (user, secret string, err error)

	// PlainHTTP lists hosts ("host", any port, or "host:port") spoken to
	// without TLS. Loopback addresses need no entry. HostsDir has precedence.
	PlainHTTP []string
	// Insecure lists hosts whose TLS certificates are not checked.
	Insecure []string
	// TLS, if not nil, is for hosts whose entry in HostsDir says nothing about
	// TLS: authorities to trust, client certificates. Insecure is beside it.
	TLS *tls.Config
	// Decorate, if not nil, puts something around the transports of all
	// hosts that sees requests and answers as they are sent.
	Decorate func(http.RoundTripper) http.RoundTripper

	// UserAgent names the client. Default "reprise".
	UserAgent string

	// ConnectTimeout bounds a TCP connect and a TLS handshake. Default 10 s.
	ConnectTimeout time.Duration
	// ResponseHeaderTimeout bounds the wait for the head of a response.
	// Default 30 s.
	ResponseHeaderTimeout time.Duration
	// IdleTimeout bounds how long a body may deliver, or take, nothing.
	// Default 30 s.
	IdleTimeout time.Duration
	// MaxConnsPerHost bounds the connections to a host; 0 leaves that to
	// blob.Limiter, which knows what is urgent.
	MaxConnsPerHost int

	// Retry is how Resolve, Fetch and Push repeat what failed for the
	// moment. Default 4 attempts from 200 ms on. Blobs are read once: see
	// blob.Retry.
	Retry blob.RetryConfig

	// UploadChunk is the size in bytes of the requests that a larger blob is
	// uploaded by, for hosts behind proxies that limit the size of one. 0
	// is one request for all of it, which every registry takes.
	UploadChunk int64

	// DialContext makes the connections; nil is TCP.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	// Logger gets what can not be returned to a caller, such as a host
	// configuration that became unreadable. Default slog.Default().
	Logger *slog.Logger
}

// Validate reports values that make no sense.
func (c Config) Validate() error {
	if c.ConnectTimeout < 0 || c.ResponseHeaderTimeout < 0 || c.IdleTimeout < 0 {
		return errors.New("registry timeouts must not be negative")
	}
	if c.MaxConnsPerHost < 0 {
		return fmt.Errorf("limit of %d connections per host is negative", c.MaxConnsPerHost)
	}
	if c.UploadChunk < 0 {
		return fmt.Errorf("upload chunks of %d bytes", c.UploadChunk)
	}
	for _, hosts := range [][]string{c.PlainHTTP, c.Insecure} {
		for _, h := range hosts {
			if !validHost(h) {
				return fmt.Errorf("%q is not a host or host:port", h)
			}
		}
	}
	return c.Retry.Validate()
}

func (c Config) withDefaults() Config {
	if c.UserAgent == "" {
		c.UserAgent = "reprise"
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 10 * time.Second
	}
	if c.ResponseHeaderTimeout == 0 {
		c.ResponseHeaderTimeout = 30 * time.Second
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 30 * time.Second
	}
	if c.Retry.Attempts == 0 && c.Retry.Deadline == 0 {
		c.Retry.Attempts = 4
	}
	if c.Retry.Base == 0 {
		c.Retry.Base = 200 * time.Millisecond
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}
