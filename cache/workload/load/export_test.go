package load

import (
	"context"
	"net"
	"net/http"
)

// WithDial has cfg make its connections with dial.
func WithDial(cfg Config, dial func(ctx context.Context, network, address string) (net.Conn, error)) Config {
	cfg.dial = dial
	return cfg
}

// Outcome is what a header says of a cache.
func Outcome(h http.Header) string { return outcome(h) }

// Index is what is pushed for a manifest.
var Index = index
