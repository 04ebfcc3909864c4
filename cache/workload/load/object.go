package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

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
	Status  int           // of the last exchange
	Bytes   int64         // of the body, received or sent
	Size    int64         // of the object, as the registry has it; -1 if it does not say
	Digest  digest.Digest // as the registry says, "" if it does not
	Mounted bool          // nothing had to be sent
	Header  http.Header   // of the last answer
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

// path returns where the object is.
func (o Object) path() string {
	if o.Kind != trace.Manifest {
		return "/v2/" + o.Repository + "/blobs/" + o.Digest.String()
	}
	ref := o.Tag
	if ref == "" {
		ref = o.Digest.String()
	}
	return "/v2/" + o.Repository + "/manifests/" + ref
}

// Push pushes an object whether the registry has it or not. Of a blob it is POST and
// PUT, of a manifest PUT. The error is an *Error.
func (c *Client) Push(ctx context.Context, o Object) (Answer, error) {
	return c.with(ctx, o, pushScope(o.Repository, o.From), func(ctx context.Context, x *exchange) (Answer, error) {
		body := func() io.Reader { return o.Body(0) }
		if o.Kind == trace.Manifest {
			return x.put(ctx, x.at(o.path(), o.Query), o.MediaType, o.Size, body)
		}
		query := o.Query
		if o.From != "" {
			query = joinQuery(query, "mount="+url.QueryEscape(o.Digest.String())+"&from="+url.QueryEscape(o.From))
		}
		to, a, err := x.start(ctx, o.Repository, query)
		if err != nil || to == nil {
			a.Mounted = err == nil
			return a, err
		}
		return x.put(ctx, withDigest(to, o.Digest), "application/octet-stream", o.Size, body)
	})
}

// Head asks whether an object is there. A status of 404 is no error. The error is an
// *Error.
func (c *Client) Head(ctx context.Context, o Object) (Answer, error) {
	return c.with(ctx, o, pullScope(o.Repository), func(ctx context.Context, x *exchange) (Answer, error) {
		a, err := x.receive(ctx, call{method: http.MethodHead, url: x.at(o.path(), o.Query), header: accepts(o.Kind)}, nil)
		if a.Status == http.StatusNotFound {
			err = nil
		}
		return a, err
	})
}

// Fetch reads an object into w. It does not compare digests. The error is an *Error,
// under which is what w returned if that was it.
func (c *Client) Fetch(ctx context.Context, o Object, w io.Writer) (Answer, error) {
	return c.with(ctx, o, pullScope(o.Repository), func(ctx context.Context, x *exchange) (Answer, error) {
		return x.receive(ctx, call{method: http.MethodGet, url: x.at(o.path(), o.Query), header: accepts(o.Kind)}, func(p []byte) error {
			_, err := w.Write(p)
			return err
		})
	})
}

// with lets act exchange messages about o, for as long as there is progress.
func (c *Client) with(ctx context.Context, o Object, scope string, act func(context.Context, *exchange) (Answer, error)) (Answer, error) {
	if o.Registry < 0 || o.Registry >= len(c.endpoints) {
		return Answer{}, &Error{Cause: CauseConnect, Err: fmt.Errorf("there is no registry %d", o.Registry)}
	}
	w := newWatch(c.timeout)
	defer w.close()
	ctx = w.begin(ctx)
	x := &exchange{c: c, e: c.endpoints[o.Registry], w: w, client: o.Client, scope: func() string { return scope }}
	a, err := act(ctx, x)
	if err != nil {
		return a, failure(ctx, err)
	}
	return a, nil
}

func pullScope(repository string) string { return "repository:" + repository + ":pull" }

// pushScope returns the scope of a push, and of reading where a blob is mounted from.
func pushScope(repository, from string) string {
	s := "repository:" + repository + ":pull,push"
	if from != "" {
		s += " " + pullScope(from)
	}
	return s
}

func joinQuery(a, b string) string {
	if a == "" {
		return b
	}
	return a + "&" + b
}

func withDigest(to *url.URL, d digest.Digest) *url.URL {
	u := *to
	u.RawQuery = joinQuery(u.RawQuery, "digest="+url.QueryEscape(d.String()))
	return &u
}

var (
	plainHeader    = http.Header{"User-Agent": userAgent, "Accept": {"*/*"}}
	manifestHeader = http.Header{"User-Agent": userAgent, "Accept": {strings.Join([]string{
		"application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json",
		"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json",
		"*/*"}, ", ")}}
)

// accepts returns the header of a request for an object of a kind.
func accepts(k trace.Kind) http.Header {
	if k == trace.Manifest {
		return manifestHeader
	}
	return plainHeader
}

var errNoLocation = errors.New("it does not say where to upload to")
