package load_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

func (g *registry) methods() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []string
	for _, r := range g.requests {
		method, _, _ := strings.Cut(r, " ")
		out = append(out, method)
	}
	return strings.Join(out, " ")
}

func TestPushItems(t *testing.T) {
	for _, c := range []struct {
		name    string
		item    load.Item
		methods string
		bytes   int64
	}{
		{"blob", load.Item{Op: load.Push, Kind: trace.Upload, Path: "/v2/a/blobs/uploads/", Size: 300_000}, "POST PATCH PUT", 300_000},
		{"empty blob", load.Item{Op: load.Push, Kind: trace.Upload, Path: "/v2/a/blobs/uploads/", Size: 0}, "POST PUT", 0},
		{"size not known", load.Item{Op: load.Push, Kind: trace.Upload, Path: "/v2/a/blobs/uploads/", Size: -1}, "POST PUT", 0},
		{"manifest", load.Item{Op: load.Push, Kind: trace.Manifest, Path: "/v2/a/manifests/v1", Size: 2000}, "PUT", 2000},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRegistry(t)
			r := run(t, to(g.Server), c.item)[0]
			if r.Cause != "" || r.Status != http.StatusCreated || r.Bytes != c.bytes {
				t.Errorf("%+v", r)
			}
			if got := g.methods(); got != c.methods {
				t.Errorf("requests %s, want %s", got, c.methods)
			}
		})
	}
}

// TestParts sends uploads part by part, two of them interleaved, one that was begun
// before the trace, and one whose digest is that of all its parts.
func TestParts(t *testing.T) {
	g := newRegistry(t)
	start := func() load.Item {
		return load.Item{Op: load.Start, Kind: trace.Upload, URI: "v2/a/blobs/uploads/", Path: "/v2/a/blobs/uploads/"}
	}
	part := func(op load.Op, id string, size int64) load.Item {
		return load.Item{Op: op, Kind: trace.Upload, URI: "v2/a/blobs/uploads/" + id, Path: "/v2/a/blobs/uploads/", Size: size}
	}
	cfg := to(g.Server)
	cfg.Closed = true
	rs := run(t, cfg, start(), start(), part(load.Append, "x", 1000), part(load.Append, "y", 50), part(load.Append, "x", 2000),
		part(load.Finish, "x", 0), part(load.Finish, "y", 7), part(load.Append, "z", 100), part(load.Finish, "z", 0))
	for _, r := range rs {
		if r.Cause != "" {
			t.Errorf("%+v", r)
		}
	}
	var sizes []int
	for _, p := range g.blobs {
		sizes = append(sizes, len(p))
	}
	slices.Sort(sizes)
	if fmt.Sprint(sizes) != "[57 100 3000]" || len(g.uploads) != 0 {
		t.Errorf("blobs of %v bytes, %d uploads are open", sizes, len(g.uploads))
	}
	if want := "POST POST PATCH PATCH PATCH PUT PATCH PUT POST PATCH PUT"; g.methods() != want {
		t.Errorf("requests %s, want %s", g.methods(), want)
	}
}

// TestPartsOpen sends the parts of an upload all at once: each waits for the one before.
func TestPartsOpen(t *testing.T) {
	g := newRegistry(t)
	var all []load.Item
	for i := range 20 {
		uri := fmt.Sprint("v2/a/blobs/uploads/", i)
		all = append(all, load.Item{Op: load.Start, Kind: trace.Upload, URI: "v2/a/blobs/uploads/", Path: "/v2/a/blobs/uploads/"},
			load.Item{Op: load.Append, Kind: trace.Upload, URI: uri, Path: "/v2/a/blobs/uploads/", Size: int64(1000 + i)},
			load.Item{Op: load.Finish, Kind: trace.Upload, URI: uri, Path: "/v2/a/blobs/uploads/"})
	}
	n := 0
	for _, r := range run(t, to(g.Server), all...) {
		if r.Cause != "" {
			t.Errorf("%+v", r)
		}
		n++
	}
	if len(g.blobs) != 20 || len(g.uploads) != 0 {
		t.Errorf("%d blobs, %d uploads are open", len(g.blobs), len(g.uploads))
	}
}

// What was started and never went on is not held for ever: what is mounted is started too.
func TestStartsThatNothingFollows(t *testing.T) {
	if held, same := load.Started(load.MaxPlaces + 10); held != load.MaxPlaces || !same {
		t.Errorf("%d are held, of which the last: %t", held, same)
	}
}

// TestPushFails has the registry refuse the second of a push's three requests.
func TestPushFails(t *testing.T) {
	g := newRegistry(t)
	g.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch {
			http.Error(w, "disk full", http.StatusInsufficientStorage)
		}
		return r.Method == http.MethodPatch
	}
	r := run(t, to(g.Server), load.Item{Op: load.Push, Kind: trace.Upload, Path: "/v2/a/blobs/uploads/", Size: 10 << 20})[0]
	if r.Cause != load.CauseStatus && r.Cause != load.CauseCut { // the registry may close before it has read all
		t.Errorf("%+v", r)
	}
}

func TestObjects(t *testing.T) {
	g := newRegistry(t)
	c, err := load.NewClient(to(g.Server))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := bytes.Repeat([]byte("layer"), 1000)
	o := load.Object{
		Repository: "a/b", Kind: trace.Blob, Digest: digest.FromBytes(p), Size: int64(len(p)),
		Body: func(off int64) io.Reader { return bytes.NewReader(p[off:]) },
	}
	if a, err := c.Head(t.Context(), o); err != nil || a.Status != http.StatusNotFound {
		t.Errorf("before: %+v, %v", a, err)
	}
	if a, err := c.Push(t.Context(), o); err != nil || a.Status != http.StatusCreated || a.Bytes != o.Size || a.Mounted {
		t.Errorf("push: %+v, %v", a, err)
	}
	if a, err := c.Head(t.Context(), o); err != nil || a.Status != http.StatusOK || a.Size != o.Size || a.Digest != o.Digest {
		t.Errorf("after: %+v, %v", a, err)
	}
	var b bytes.Buffer
	if a, err := c.Fetch(t.Context(), o, &b); err != nil || a.Bytes != o.Size || !bytes.Equal(b.Bytes(), p) {
		t.Errorf("fetch: %+v, %v", a, err)
	}
	full := errors.New("full")
	if _, err := c.Fetch(t.Context(), o, writer(func([]byte) (int, error) { return 0, full })); !errors.Is(err, full) {
		t.Errorf("the writer's error is lost: %v", err)
	}
	mounted := o
	mounted.Repository, mounted.From = "c", "a/b"
	if a, err := c.Push(t.Context(), mounted); err != nil || !a.Mounted || a.Bytes != 0 {
		t.Errorf("mount: %+v, %v", a, err)
	}
	mounted.Repository, mounted.From = "d", "nowhere"
	if a, err := c.Push(t.Context(), mounted); err != nil || a.Mounted || a.Bytes != o.Size {
		t.Errorf("mount of nothing: %+v, %v", a, err)
	}
	m := []byte(`{"schemaVersion":2}`)
	doc := load.Object{
		Repository: "a/b", Kind: trace.Manifest, Tag: "v1", MediaType: "application/vnd.oci.image.manifest.v1+json", Size: int64(len(m)),
		Body: func(off int64) io.Reader { return bytes.NewReader(m[off:]) },
	}
	if a, err := c.Push(t.Context(), doc); err != nil || a.Status != http.StatusCreated {
		t.Errorf("manifest: %+v, %v", a, err)
	}
	if a, err := c.Head(t.Context(), doc); err != nil || a.Digest != digest.FromBytes(m) {
		t.Errorf("manifest: %+v, %v", a, err)
	}
	o.Registry = 1
	if _, err := c.Head(t.Context(), o); err == nil {
		t.Error("a registry that is not there answered")
	}
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestIndex(t *testing.T) {
	seen := map[digest.Digest]bool{}
	for size := range int64(1000) {
		b := load.Index(size, io.LimitReader(rand.Reader, size))
		if size > 200 && int64(len(b)) != size {
			t.Fatalf("%d bytes, want %d", len(b), size)
		}
		if size > 10 {
			seen[digest.FromBytes(b)] = true
		}
	}
	if len(seen) < 900 {
		t.Errorf("%d of them differ", len(seen))
	}
}

// TestPushStalls pushes to a registry that stops reading: it ends in a timeout.
func TestPushStalls(t *testing.T) {
	g := newRegistry(t)
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	g.before = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch {
			io.ReadFull(r.Body, make([]byte, 1000))
			<-stop
		}
		return false
	}
	cfg := to(g.Server)
	cfg.Timeout = time.Second
	r := run(t, cfg, load.Item{Op: load.Push, Kind: trace.Upload, Path: "/v2/a/blobs/uploads/", Size: 64 << 20})[0]
	if r.Cause != load.CauseTimeout {
		t.Errorf("%+v", r)
	}
}
