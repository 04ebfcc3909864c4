// Package cachetest is the conformance suite of read-through caches: whatever
// wraps a blob.Blob and keeps what was read.
package cachetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

// Wrap returns b read through the cache under test. A suite calls it several
// times; the blobs it gets share one cache or not, as the implementation likes.
type Wrap func(t *testing.T, b blob.Blob) blob.Blob

// Run runs the suite.
func Run(t *testing.T, wrap Wrap) {
	t.Run("blob", func(t *testing.T) {
		blobtest.Run(t, func(t *testing.T, data []byte) blob.Blob { return wrap(t, blobtest.Bytes(data)) })
	})
	t.Run("parallel", func(t *testing.T) { testParallel(t, wrap) })
	t.Run("faults", func(t *testing.T) { testFaults(t, wrap) })
	t.Run("exact", func(t *testing.T) { testExact(t, wrap) })
	t.Run("short", func(t *testing.T) { testShort(t, wrap) })
	t.Run("presence", func(t *testing.T) { testPresence(t, wrap) })
	t.Run("discard", func(t *testing.T) { testDiscard(t, wrap) })
	t.Run("anonymous", func(t *testing.T) { testAnonymous(t, wrap) })
}

// Random returns n reproducible bytes.
func Random(n int, seed uint64) []byte {
	data := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(key).Read(data)
	return data
}

// Hammer makes n random reads from each of several goroutines and compares
// them with data. An error is accepted only if it is one of allowed.
func Hammer(ctx context.Context, b blob.Blob, data []byte, readers, n int, allowed ...error) error {
	errs := make([]error, readers)
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() { errs[i] = hammerOne(ctx, b, data, uint64(i), n, allowed) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func hammerOne(ctx context.Context, b blob.Blob, data []byte, seed uint64, n int, allowed []error) error {
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	for range n {
		size := 1 + rng.IntN(9000)
		if rng.IntN(20) == 0 {
			size = 1 + rng.IntN(200_000)
		}
		size = min(size, len(data))
		off := rng.IntN(len(data) - size + 1)
		if err := Check(ctx, b, data, off, size); err != nil && !isOneOf(err, allowed) {
			return err
		}
	}
	return nil
}

func isOneOf(err error, allowed []error) bool {
	for _, a := range allowed {
		if errors.Is(err, a) {
			return true
		}
	}
	return false
}

// Check reads n bytes at off of b and compares them with data.
func Check(ctx context.Context, b blob.Blob, data []byte, off, n int) error {
	p := make([]byte, n)
	got, err := b.ReadAt(ctx, p, int64(off))
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading %d bytes at %d: %w", n, off, err)
	}
	if got != n {
		return fmt.Errorf("reading %d bytes at %d: got %d, %v", n, off, got, err)
	}
	if want := data[off : off+n]; !bytes.Equal(p, want) {
		i := 0
		for p[i] == want[i] {
			i++
		}
		return fmt.Errorf("reading %d bytes at %d: wrong from byte %d on", n, off, off+i)
	}
	return nil
}

// testParallel reads overlapping ranges from many goroutines.
func testParallel(t *testing.T, wrap Wrap) {
	data := Random(3<<20+777, 1)
	b := wrap(t, blobtest.Bytes(data))
	if err := Hammer(t.Context(), b, data, 8, 300); err != nil {
		t.Fatal(err)
	}
}

// testFaults has an origin that fails every fifth read and cuts every seventh.
func testFaults(t *testing.T, wrap Wrap) {
	data := Random(2<<20+1, 2)
	inner := blobtest.NewFaulty(blobtest.Bytes(data),
		blobtest.Fault{Every: 5, Err: blobtest.ErrInjected},
		blobtest.Fault{Every: 7, Truncate: 100})
	b := wrap(t, inner)
	err := Hammer(t.Context(), b, data, 6, 300, blobtest.ErrInjected, io.ErrUnexpectedEOF)
	if err != nil {
		t.Fatal(err)
	}
	inner.Script()
	if err := Check(t.Context(), b, data, 0, len(data)); err != nil {
		t.Fatalf("after the faults: %v", err)
	}
}

// testExact checks that a miss fetches the bytes that are missing and no more,
// and nothing twice.
func testExact(t *testing.T, wrap Wrap) {
	data := Random(1<<20+100, 3)
	inner := blobtest.NewFaulty(blobtest.Bytes(data))
	b := wrap(t, inner)
	type span struct{ off, n int }
	for _, step := range []struct {
		read  span
		fetch []span
	}{
		{span{1000, 100}, []span{{1000, 100}}},
		{span{1000, 100}, nil},
		{span{1001, 98}, nil},
		{span{1100, 50}, []span{{1100, 50}}},
		{span{999, 152}, []span{{999, 1}, {1150, 1}}},
		{span{999, 152}, nil},
		{span{0, 2048}, []span{{0, 999}, {1151, 897}}},
		{span{0, 2048}, nil},
		{span{1 << 20, 100}, []span{{1 << 20, 100}}},
		{span{1<<20 - 1, 101}, []span{{1<<20 - 1, 1}}},
	} {
		before := len(inner.Reads())
		if err := Check(t.Context(), b, data, step.read.off, step.read.n); err != nil {
			t.Fatal(err)
		}
		got := make(map[span]bool)
		for _, r := range inner.Reads()[before:] {
			got[span{int(r.Off), r.Len}] = true
		}
		if len(got) != len(step.fetch) {
			t.Errorf("read %v fetched %v, want %v", step.read, got, step.fetch)
		}
		for _, s := range step.fetch {
			if !got[s] {
				t.Errorf("read %v fetched %v, want %v", step.read, got, step.fetch)
			}
		}
	}
}

// testShort has an origin that returns fewer bytes than asked for, without an
// error, once: the read must fail and nothing of it be kept.
func testShort(t *testing.T, wrap Wrap) {
	data := Random(10_000, 4)
	b := wrap(t, &short{Blob: blobtest.Bytes(data)})
	if _, err := b.ReadAt(t.Context(), make([]byte, 5000), 0); err == nil {
		t.Error("a short read of the origin passed for a whole one")
	}
	if err := Check(t.Context(), b, data, 0, 5000); err != nil {
		t.Error(err)
	}
}

type short struct {
	blob.Blob
	once sync.Once
}

func (s *short) ReadAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	s.once.Do(func() { n = len(p) / 2 })
	if n > 0 {
		return n, nil
	}
	return s.Blob.ReadAt(ctx, p, off)
}

// testPresence follows what a cache says it holds.
func testPresence(t *testing.T, wrap Wrap) {
	data := Random(5000, 5)
	b := wrap(t, blobtest.Bytes(data))
	if blob.Present(b, 0, 1) {
		t.Error("something is present before the first read")
	}
	if err := Check(t.Context(), b, data, 600, 10); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		off, n int64
		want   bool
	}{{600, 10, true}, {605, 5, true}, {599, 2, false}, {609, 2, false}, {0, 600, false}, {4999, 1, false}, {4999, 2, false}, {-1, 2, false}} {
		if got := blob.Present(b, c.off, c.n); got != c.want {
			t.Errorf("Present(%d, %d) = %t", c.off, c.n, got)
		}
	}
	if err := Check(t.Context(), b, data, 0, len(data)); err != nil {
		t.Fatal(err)
	}
	if !blob.Present(b, 0, 5000) {
		t.Error("not present after it was read")
	}
}

// testDiscard checks that bytes that turned out to be damaged are fetched anew.
func testDiscard(t *testing.T, wrap Wrap) {
	data := Random(20_000, 6)
	bad := bytes.Clone(data)
	bad[9000] ^= 1
	source := &swapped{Blob: blobtest.Bytes(data), data: bad}
	b := wrap(t, source)
	if err := Check(t.Context(), b, bad, 0, len(bad)); err != nil {
		t.Fatal(err)
	}
	source.data = data
	if !blob.Discard(b, 8999, 100) {
		t.Skip("the implementation does not discard")
	}
	if err := Check(t.Context(), b, data, 0, len(data)); err != nil {
		t.Fatalf("after Discard: %v", err)
	}
}

// swapped is a blob whose bytes the test changes.
type swapped struct {
	blob.Blob
	data []byte
}

func (s *swapped) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(s.data).ReadAt(p, off)
}

// testAnonymous has a blob without a digest, which can't be cached.
func testAnonymous(t *testing.T, wrap Wrap) {
	data := Random(5000, 7)
	b := wrap(t, anonymous{blobtest.Bytes(data)})
	for range 2 {
		if err := Check(t.Context(), b, data, 100, 4000); err != nil {
			t.Fatal(err)
		}
	}
	if blob.Present(b, 100, 100) {
		t.Error("a blob without a digest was cached")
	}
}

type anonymous struct{ blob.Blob }

func (a anonymous) Descriptor() ocispec.Descriptor { return ocispec.Descriptor{Size: a.Size()} }
