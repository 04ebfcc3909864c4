// Package transport holds the http.RoundTrippers a registry client is made of,
// one concern each.
package transport

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

// DialFunc makes a connection.
type DialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// Dialer returns a DialFunc with a time limit for each connection.
func Dialer(timeout time.Duration) DialFunc {
	return (&net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second}).DialContext
}

// Options are what the connections of a transport depend on.
type Options struct {
	// TLS is copied.
	TLS *tls.Config
	// Dial makes connections.
	Dial DialFunc
	// ConnectTimeout bounds a TLS handshake.
	ConnectTimeout time.Duration
	// ResponseHeaderTimeout bounds the wait for the head of a response,
	// once the request is written.
	ResponseHeaderTimeout time.Duration
	// MaxConnsPerHost bounds connections; 0 is no bound.
	MaxConnsPerHost int
}

// New returns a transport for many parallel range requests to few hosts:
// connections are kept, HTTP/2 is used where TLS negotiates it, proxies are
// those of the environment, and bodies arrive as they were sent.
func New(o Options) *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           o.Dial,
		TLSClientConfig:       o.TLS.Clone(), // net/http adds protocols to it
		TLSHandshakeTimeout:   o.ConnectTimeout,
		ResponseHeaderTimeout: o.ResponseHeaderTimeout,
		ExpectContinueTimeout: 5 * time.Second,
		MaxConnsPerHost:       o.MaxConnsPerHost,
		// An idle connection dropped is a handshake on the next miss.
		MaxIdleConns:        512,
		MaxIdleConnsPerHost: 128,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true, // ranges are of the stored bytes
		ForceAttemptHTTP2:   true, // own dialer and TLS settings would turn it off
		HTTP2: &http.HTTP2Config{
			// All streams of a host hang on one connection: find out
			// that it is dead sooner than TCP does.
			SendPingTimeout: 15 * time.Second,
			PingTimeout:     15 * time.Second,
		},
		MaxResponseHeaderBytes: 256 << 10,
		ReadBufferSize:         16 << 10, // of each connection; larger reads go past it
	}
}

// CloseIdle closes the idle connections of a transport, also below decorators.
func CloseIdle(rt http.RoundTripper) {
	if c, ok := rt.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
