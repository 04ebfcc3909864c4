package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/reprise-containers/reprise/remote/blob"
)

// Run tests that the blobs that open returns for given contents are what
// blob.Blob promises. open is called for each test, with contents of several
// sizes, empty included.
func Run(t *testing.T, open func(t *testing.T, data []byte) blob.Blob) {
	for _, size := range []int{0, 1, 511, 4096, 300_001} {
		t.Run(fmt.Sprintf("size=%d", size), func(t *testing.T) {
			data := random(size)
			t.Run("Descriptor", func(t *testing.T) { testDescriptor(t, open(t, data), data) })
			t.Run("Ranges", func(t *testing.T) { testRanges(t, open(t, data), data) })
			t.Run("End", func(t *testing.T) { testEnd(t, open(t, data), data) })
			t.Run("Parallel", func(t *testing.T) { testParallel(t, open(t, data), data) })
			t.Run("Cancelled", func(t *testing.T) { testCancelled(t, open(t, data), data) })
		})
	}
	t.Run("Buffer", func(t *testing.T) { data := random(64 << 10); testBuffer(t, open(t, data), data) })
}

func random(n int) []byte {
	data := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = rng.Read(data)
	return data
}

func testDescriptor(t *testing.T, b blob.Blob, data []byte) {
	if b.Size() != int64(len(data)) {
		t.Errorf("Size is %d, want %d", b.Size(), len(data))
	}
	if d := b.Descriptor(); d.Size != int64(len(data)) {
		t.Errorf("size in the descriptor is %d, want %d", d.Size, len(data))
	}
}

// checkRead reads [off, off+n) and compares bytes, count and error with the
// contract.
func checkRead(ctx context.Context, b blob.Blob, data []byte, off int64, n int) error {
	want, wantErr := []byte(nil), error(nil)
	if off < int64(len(data)) {
		want = data[off:min(int64(len(data)), off+int64(n))]
	}
	if len(want) < n {
		wantErr = io.EOF
	}
	p := make([]byte, n)
	got, err := b.ReadAt(ctx, p, off)
	if err != wantErr {
		return fmt.Errorf("reading %d bytes at %d of %d: error %v, want %v", n, off, len(data), err, wantErr)
	}
	if got != len(want) {
		return fmt.Errorf("reading %d bytes at %d of %d: got %d, want %d", n, off, len(data), got, len(want))
	}
	if !bytes.Equal(p[:got], want) {
		return fmt.Errorf("reading %d bytes at %d of %d: wrong bytes", n, off, len(data))
	}
	return nil
}

func testRanges(t *testing.T, b blob.Blob, data []byte) {
	if err := checkRead(t.Context(), b, data, 0, len(data)); err != nil {
		t.Error(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		off := rng.Int64N(int64(len(data)) + 1)
		n := rng.IntN(len(data) - int(off) + 1)
		if err := checkRead(t.Context(), b, data, off, n); err != nil {
			t.Error(err)
		}
	}
}

func testEnd(t *testing.T, b blob.Blob, data []byte) {
	size := int64(len(data))
	for _, r := range []struct {
		off int64
		n   int
	}{
		{size, 1}, {size + 1, 1}, {size + 1<<40, 10}, {0, len(data) + 1},
		{max(0, size-1), 100}, {size / 2, len(data) + 5},
	} {
		if err := checkRead(t.Context(), b, data, r.off, r.n); err != nil {
			t.Error(err)
		}
	}
	if n, err := b.ReadAt(t.Context(), make([]byte, 1), -1); err == nil || n != 0 {
		t.Errorf("reading at a negative offset: %d bytes, error %v", n, err)
	}
	if n, err := b.ReadAt(t.Context(), nil, 0); err != nil || n != 0 {
		t.Errorf("reading no bytes: %d bytes, error %v", n, err)
	}
}

func testParallel(t *testing.T, b blob.Blob, data []byte) {
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(3, uint64(i/2))) // pairs read the same
			for range 20 {
				off := rng.Int64N(int64(len(data)) + 1)
				n := rng.IntN(min(len(data)+1, 70_000))
				if err := checkRead(t.Context(), b, data, off, n); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// testCancelled allows a blob that holds the bytes to serve them.
func testCancelled(t *testing.T, b blob.Blob, data []byte) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := make([]byte, len(data))
	n, err := b.ReadAt(ctx, p, 0)
	if err == nil && (n != len(data) || !bytes.Equal(p, data)) {
		t.Errorf("reading with a cancelled context: %d bytes, wrong, and no error", n)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("reading with a cancelled context: %v does not say so", err)
	}
	if err := checkRead(t.Context(), b, data, 0, len(data)); err != nil {
		t.Errorf("after a cancelled read: %v", err)
	}
}

// testBuffer looks, with the race detector's help, for reads that use their
// buffer after they returned.
func testBuffer(t *testing.T, b blob.Blob, data []byte) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				ctx, cancel := context.WithCancel(t.Context())
				stop := make(chan struct{})
				go func() {
					if i%2 == 0 {
						cancel()
					}
					close(stop)
				}()
				p := make([]byte, 8192)
				_, _ = b.ReadAt(ctx, p, int64(i/2)*8192)
				for j := range p {
					p[j] = 0xA5
				}
				<-stop
				cancel()
				for _, c := range p {
					if c != 0xA5 {
						t.Error("the buffer changed after ReadAt returned")
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if err := checkRead(t.Context(), b, data, 0, len(data)); err != nil {
		t.Error(err)
	}
}
