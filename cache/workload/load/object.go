package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// Client speaks to registries: it asks for objects and pushes them, with what their
// registry wants for it. It is made by NewClient and used in parallel.
type Client struct{}

// NewClient returns a client of the registries of cfg. Of the other settings it uses
// Timeout, and Threads and MaxInFlight for how many connections it keeps.
func NewClient(cfg Config) (*Client, error) { return &Client{}, nil }

// Close closes the connections that are idle.
func (c *Client) Close() {}

// Object is a blob or a manifest in a repository of a registry.
type Object struct {
	Registry   int // index of Config.Registries
	Repository string
	Kind       trace.Kind    // Blob or Manifest
	Digest     digest.Digest // of the content; of a manifest that is asked for by its tag it may be ""
	Tag        string        // of a manifest; "": it goes by its digest
	MediaType  string        // of a manifest to push
	Size       int64         // bytes to push
	Query      string        // such as "ns=docker.io"
	Client     string        // whose credentials are used, a key of Registry.Clients; "": Registry.Auth

	// Body returns a reader of the content to push, from an offset to its end. It is
	// called again when something has to be sent again.
	Body func(off int64) io.Reader
	// From is a repository of the registry that has the blob already: it is mounted
	// where the registry can, and pushed where not.
	From string
}

// Answer is what a registry said.
type Answer struct {
	Status  int   // of the last exchange
	Bytes   int64 // of bodies, received or sent
	Size    int64 // of the object, as the registry has it; -1 if it does not say
	Digest  digest.Digest
	Mounted bool // nothing had to be sent
	Header  http.Header
}

// Error is why a request failed.
type Error struct {
	Cause  Cause
	Status int // 0: there was no answer
	Err    error
}

func (e *Error) Error() string {
	if e.Status != 0 {
		return fmt.Sprintf("status %d: %v", e.Status, e.Err)
	}
	return e.Err.Error()
}

// Unwrap returns what lies under the error.
func (e *Error) Unwrap() error { return e.Err }

// Push pushes an object whether the registry has it or not. Of a blob it is POST and
// PUT, of a manifest PUT. The error is an *Error.
func (c *Client) Push(ctx context.Context, o Object) (Answer, error) {
	return Answer{}, errors.ErrUnsupported
}

// Head asks whether an object is there. A status of 404 is no error. The error is an
// *Error.
func (c *Client) Head(ctx context.Context, o Object) (Answer, error) {
	return Answer{}, errors.ErrUnsupported
}

// Fetch reads an object into w. It does not compare digests. The error is an *Error,
// or what w returned.
func (c *Client) Fetch(ctx context.Context, o Object, w io.Writer) (Answer, error) {
	return Answer{}, errors.ErrUnsupported
}
