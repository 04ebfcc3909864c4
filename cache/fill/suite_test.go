package fill_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/cache/fill"
)

const origin = "registry.example.com"

// rig is a cache and a group that fills it.
type rig struct {
	t     testing.TB
	cache *cache.Cache
	group *fill.Group
	stop  func() // ends Run and waits for it

	fullDisk bool // closing the cache may fail
}

func newRig(t testing.TB, cfg fill.Config, disk cache.Config) *rig {
	t.Helper()
	if disk.Dir == "" {
		disk.Dir = t.TempDir()
	}
	disk.WholeBlobs = true
	c, err := cache.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := fill.New(cfg)
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	r := &rig{t: t, cache: c, group: g}
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("running: %v", err)
		}
	})
	t.Cleanup(func() {
		r.stop()
		// The cache itself holds a blob for a moment when it writes its map.
		eventually(t, "nothing is held", func() bool {
			return !slices.ContainsFunc(c.Blobs(), func(b cache.BlobInfo) bool { return b.Holders != 0 })
		})
		if n := g.Stats(); n.Readers != 0 || n.Waiting != 0 || n.Fetching != 0 {
			t.Errorf("something is left: %+v", n)
		}
		if err := c.Close(); err != nil && !r.fullDisk {
			t.Errorf("closing: %v", err)
		}
		noGoroutines(t)
	})
	return r
}

// noGoroutines fails the test if something of the package still runs.
func noGoroutines(t testing.TB) {
	t.Helper()
	left := ""
	for range 100 {
		if left = ours(); left == "" {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("a goroutine is left:\n%s", left)
}

// ours returns the stack of a goroutine that runs code of package fill.
func ours() string {
	buf := make([]byte, 1<<20)
	stacks := string(buf[:runtime.Stack(buf, true)])
	for s := range strings.SplitSeq(stacks, "\n\n") {
		if strings.Contains(s, "/cache/fill.") {
			return s
		}
	}
	return ""
}

// descriptors has what describe returned, by the address of the data: hashing it
// again for each read would be most of what a test does.
var descriptors sync.Map

func describe(data []byte) ocispec.Descriptor {
	if d, ok := descriptors.Load(&data[0]); ok {
		return d.(ocispec.Descriptor)
	}
	d := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(data), Size: int64(len(data)),
	}
	descriptors.Store(&data[0], d) // keeps the data too, so the address stays its own
	return d
}

func (r *rig) hold(desc ocispec.Descriptor) *cache.Content {
	r.t.Helper()
	x, err := r.cache.Hold(origin, desc)
	if err != nil {
		r.t.Fatal(err)
	}
	return x
}

// reader opens a reader with a hold of its own.
func (r *rig) reader(ctx context.Context, desc ocispec.Descriptor, src fill.Source, off, n int64) (rd *fill.Reader, done func()) {
	r.t.Helper()
	x := r.hold(desc)
	rd = r.group.Reader(ctx, x, src, off, n)
	return rd, func() {
		if err := rd.Close(); err != nil {
			r.t.Errorf("closing a reader: %v", err)
		}
		x.Release()
	}
}

// against is a writer that compares what it gets with what it should get.
type against struct {
	want []byte
	got  int64
	told func() // at the first byte; optional
}

func (w *against) Write(p []byte) (int, error) {
	if w.got == 0 && len(p) > 0 && w.told != nil {
		w.told()
	}
	if rest := w.want[w.got:]; len(p) > len(rest) || !bytes.Equal(p, rest[:len(p)]) {
		return 0, fmt.Errorf("%d bytes at %d are wrong", len(p), w.got)
	}
	w.got += int64(len(p))
	return len(p), nil
}

// read reads n bytes at off of a blob, of which the upstream sends what sent is,
// true or not, and returns how many of them came.
func (r *rig) read(ctx context.Context, desc ocispec.Descriptor, sent []byte, src fill.Source, off, n int64) (int64, error) {
	rd, done := r.reader(ctx, desc, src, off, n)
	defer done()
	w := &against{want: sent[off : off+n]}
	written, err := rd.WriteTo(w)
	if written != w.got && err == nil {
		err = fmt.Errorf("WriteTo says that it wrote %d bytes of %d", written, w.got)
	}
	return w.got, err
}

// check reads [off, off+n) of data and compares.
func (r *rig) check(ctx context.Context, data []byte, src fill.Source, off, n int64) error {
	got, err := r.read(ctx, describe(data), data, src, off, n)
	if err == nil && got < n {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("reading %d bytes at %d: after %d bytes: %w", n, off, got, err)
	}
	return nil
}

// settle waits until the content of data is verified.
func (r *rig) settle(data []byte) {
	r.t.Helper()
	desc := describe(data)
	for range 500 {
		if x, ok := r.cache.Find("", desc.Digest); ok {
			got := make([]byte, len(data))
			n, err := x.ReadAt(got, 0)
			x.Release()
			if n != len(data) || !bytes.Equal(got, data) {
				r.t.Fatalf("the verified content is wrong: %d bytes, %v", n, err)
			}
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Fatalf("the content was never verified: %+v", r.group.Stats())
}

// unverified fails if something is verified that may not be.
func (r *rig) unverified(desc ocispec.Descriptor) {
	r.t.Helper()
	if x, ok := r.cache.Find("", desc.Digest); ok {
		x.Release()
		r.t.Error("a wrong content is verified")
	}
}

// upstream is what all Sources of a blob read from.
type upstream struct {
	data []byte // what it sends, the truth or not

	// hook, if set, is asked at every read of a body what is to become of it.
	// It may block until ctx ends.
	hook func(ctx context.Context, o *openedBody) error

	mu    sync.Mutex
	opens []open
	sent  int64
}

// open is a request.
type open struct {
	who    string
	off, n int64
}

// caller is a Source: one client's way to the upstream.
type caller struct {
	*upstream
	name  string
	fails func(off, n int64) error // of Open; nil for none
}

func newUpstream(data []byte) *upstream { return &upstream{data: data} }

func (u *upstream) by(name string) *caller { return &caller{upstream: u, name: name} }

// refusing returns a caller whose requests fail with err.
func (u *upstream) refusing(name string, err error) *caller {
	return &caller{upstream: u, name: name, fails: func(int64, int64) error { return err }}
}

func (c *caller) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if n < 0 {
		n = int64(len(c.data)) - off
	}
	if off < 0 || n <= 0 || off+n > int64(len(c.data)) {
		return nil, fmt.Errorf("asked for %d bytes at %d of %d", n, off, len(c.data))
	}
	c.mu.Lock()
	c.opens = append(c.opens, open{c.name, off, n})
	c.mu.Unlock()
	if c.fails != nil {
		if err := c.fails(off, n); err != nil {
			return nil, err
		}
	}
	return &openedBody{ctx: ctx, c: c, off: off, pos: off, end: off + n}, nil
}

// openedBody is an answer of an upstream.
type openedBody struct {
	ctx           context.Context
	c             *caller
	off, pos, end int64
	closed        atomic.Bool // a body may be closed while it is read
}

// networkPiece is how much one read of a body returns, about what a socket does.
const networkPiece = 32 << 10

func (o *openedBody) Read(p []byte) (int, error) {
	if o.closed.Load() {
		return 0, errors.New("read after close")
	}
	if o.c.hook != nil {
		if err := o.c.hook(o.ctx, o); err != nil {
			return 0, err
		}
	}
	if err := o.ctx.Err(); err != nil {
		return 0, err
	}
	if o.pos == o.end {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), networkPiece)], o.c.data[o.pos:o.end])
	o.pos += int64(n)
	o.c.mu.Lock()
	o.c.sent += int64(n)
	o.c.mu.Unlock()
	return n, nil
}

func (o *openedBody) Close() error {
	o.closed.Store(true)
	return nil
}

func (u *upstream) requests() []open {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]open(nil), u.opens...)
}

func (u *upstream) bytes() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.sent
}

// cheap fails if more was sent than the contract allows for unique bytes.
func (u *upstream) cheap(t testing.TB, unique int64) {
	t.Helper()
	if sent := u.bytes(); sent < unique || float64(sent) > 1.01*float64(unique) {
		t.Errorf("the upstream sent %d bytes in %d requests where %d are needed", sent, len(u.requests()), unique)
	}
}

func random(n int, seed uint64) []byte { return cachetest.Random(n, seed) }
