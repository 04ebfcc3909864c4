package load

import (
	"context"
	"fmt"
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

// Started claims a place for the start of an upload in each of n repositories and one
// for a part of an upload in the last of them. It returns how many starts are held
// then, and whether the part was given the upload that was started there.
func Started(n int) (held int, same bool) {
	var u uploads
	for i := range n {
		u.claim(&Item{Op: Start, URI: fmt.Sprintf("v2/%d/blobs/uploads/", i)})
	}
	held = len(u.started)
	last := u.started[fmt.Sprintf("0 %d ", n-1)]
	t := u.claim(&Item{Op: Append, URI: fmt.Sprintf("v2/%d/blobs/uploads/x", n-1)})
	return held, len(last) == 1 && t.of == last[0]
}

// MaxPlaces is in how many places starts of uploads are held.
const MaxPlaces = maxPlaces
