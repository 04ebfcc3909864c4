package replay_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/tracelayer"
	"github.com/reprise-containers/reprise/tracelayer/replay"
)

const leaf = 4096

// What compresses is made outside of all bubbles: its channels are those of where
// it is used first.
func init() {
	p := make([]byte, leaf)
	packed, err := tracelayer.Pack(p)
	if err == nil {
		_, err = tracelayer.Extent{Size: leaf, Stored: int64(len(packed))}.Unpack(packed)
	}
	if err != nil {
		panic(err)
	}
}

// layer is a layer at a registry, as a node reads it.
type layer struct {
	data   []byte
	table  chunks.Ref // zero for none
	origin *blobtest.Faulty
	target replay.Target
}

// world is layers of one host, and a plan with data.
type world struct {
	line   *replay.Line
	layers []*layer
	plan   *tracelayer.Plan
	data   []byte

	mu      sync.Mutex
	wrong   int // chunks that verification found wrong
	used    []int64
	missed  []int64
	streams []*stream
}

// VerifyFailed implements chunks.Observer.
func (w *world) VerifyFailed(_ digest.Digest, _, _, _ int64, _ string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong++
}

// Prefetched and the others implement replay.Observer.
func (w *world) Prefetched(int64) {}

func (w *world) Skipped(replay.Skipped, int64) {}

func (w *world) Used(n int64, _ time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used = append(w.used, n)
}

func (w *world) Missed(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.missed = append(w.missed, n)
}

// newWorld returns layers of leaves of 4 KiB that do not compress, of which those
// of tables have a chunk table, and a plan for a third of all, whose metadata
// comes first.
func newWorld(t testing.TB, leaves int, tables ...bool) *world {
	t.Helper()
	w := &world{line: replay.NewLine(), plan: &tracelayer.Plan{}}
	c, err := cache.Open(cache.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	limit := blob.NewLimiter(blob.LimitConfig{})
	for i, table := range tables {
		l := &layer{data: make([]byte, leaves*leaf)}
		_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(l.data)
		if table {
			raw, root, err := chunks.Build(t.Context(), bytes.NewReader(l.data), slices.Values(slices.Repeat([]int{leaf}, leaves)), 64)
			if err != nil {
				t.Fatal(err)
			}
			l.table = chunks.Ref{Root: root, Offset: int64(len(l.data)) + 512, Size: int64(len(raw))}
			l.data = slices.Concat(l.data, make([]byte, 512), raw)
		}
		l.origin = blobtest.NewFaulty(blobtest.Bytes(l.data))
		b := w.line.Watch(limit.Limit(l.origin))
		if table {
			l.target.Stage = blob.NewStage(b, "trace")
			top := &above{size: int64(len(l.data))}
			b = chunks.Verify(l.target.Stage, l.table, blob.Section(top, l.table.Offset, l.table.Size), w)
			b = c.Blob(blob.Coalesce(blob.Retry(b, blob.RetryConfig{Attempts: 2, Base: time.Millisecond})))
			top.Blob = b
		} else {
			b = c.Blob(blob.Coalesce(blob.Retry(b, blob.RetryConfig{Attempts: 2, Base: time.Millisecond})))
		}
		l.target.Use = replay.NewUse(b)
		l.target.Blob = l.target.Use
		w.layers = append(w.layers, l)
		d := l.origin.Descriptor()
		w.plan.Layers = append(w.plan.Layers, tracelayer.PlanLayer{Digest: d.Digest, Size: d.Size})
	}
	w.record(t, leaves)
	return w
}

// above is what table reads go through.
type above struct {
	blob.Blob
	size int64
}

func (a *above) Size() int64          { return a.size }
func (a *above) Discard(off, n int64) { blob.Discard(a.Blob, off, n) }
func (a *above) Reject(origin string) { blob.Reject(a.Blob, origin) }

func (w *world) record(t testing.TB, leaves int) {
	t.Helper()
	for i, l := range w.layers {
		if !l.table.IsZero() {
			w.add(t, i, l.table.Offset, l.table.Size)
		}
	}
	rng := rand.New(rand.NewPCG(4, 2))
	for _, k := range rng.Perm(leaves / 3 * len(w.layers)) {
		w.add(t, k%len(w.layers), int64(k/len(w.layers)*3*leaf), leaf)
	}
}

func (w *world) add(t testing.TB, layer int, off, n int64) {
	t.Helper()
	p := w.layers[layer].data[off : off+n]
	packed, err := tracelayer.Pack(p)
	if err != nil {
		t.Fatal(err)
	}
	w.plan.Extents = append(w.plan.Extents, tracelayer.Extent{
		Layer: layer, Off: off, Size: n, Sum: sha256.Sum256(p), Stored: int64(len(packed)),
	})
	w.data = append(w.data, packed...)
}

// job returns a replay of the plan with data that fault makes of streams.
func (w *world) job(fault func(s *stream) replay.Stream) replay.Job {
	j := replay.Job{Plan: w.plan, Line: w.line, Observer: w}
	for _, l := range w.layers {
		j.Targets = append(j.Targets, l.target)
	}
	j.Data = func(ctx context.Context, off int64) (replay.Stream, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		s := &stream{ctx: ctx, r: bytes.NewReader(w.data[off:]), off: off}
		w.streams = append(w.streams, s)
		if fault == nil {
			return s, nil
		}
		if f := fault(s); f != nil {
			return f, nil
		}
		return nil, errors.New("no stream")
	}
	return j
}

// requests returns how many reads came to the registry.
func (w *world) requests() (n int) {
	for _, l := range w.layers {
		n += len(l.origin.Reads())
	}
	return n
}

// check fails the test unless all of the plan is there and every byte of it is
// right.
func (w *world) check(t *testing.T) {
	t.Helper()
	for k, e := range w.plan.Extents {
		l := w.layers[e.Layer]
		if !blob.Present(l.target.Blob, e.Off, e.Size) {
			t.Errorf("extent %d is not there", k)
			return
		}
		p := make([]byte, e.Size)
		if err := blob.ReadFull(t.Context(), l.target.Blob, p, e.Off); err != nil || !bytes.Equal(p, l.data[e.Off:e.Off+e.Size]) {
			t.Errorf("extent %d is wrong: %v", k, err)
			return
		}
	}
}

func run(t *testing.T, j replay.Job) replay.Stats {
	t.Helper()
	s, err := replay.Run(t.Context(), j)
	if err != nil {
		t.Errorf("replaying: %v", err)
	}
	return s
}

// stream is data in memory.
type stream struct {
	ctx    context.Context
	r      io.Reader
	off    int64
	window int
	closed bool
}

func (s *stream) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}

func (s *stream) Close() error {
	s.closed = true
	return nil
}

func (s *stream) SetWindow(n int) { s.window = n }
