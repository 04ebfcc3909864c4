package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/cache/internal/disk/disktest"
)

// shared is a workload of a cache that many share: blobs come from two origins, in
// order and in pieces, one origin lies, blobs are verified, evicted, dropped and
// compared again.
type shared struct {
	data  [][]byte
	descs []ocispec.Descriptor
}

func newShared() *shared {
	w := new(shared)
	for i, size := range []int{1<<20 + 5000, 100_000, 700, 4096, 60_000} {
		p := cachetest.Random(size, uint64(100+i))
		w.data = append(w.data, p)
		w.descs = append(w.descs, ocispec.Descriptor{Digest: digest.FromBytes(p), Size: int64(size)})
	}
	return w
}

var sharedConfig = cache.Config{
	MaxBytes: 1_300_000, Policy: "lru", CheckpointEvery: time.Hour, IdleAfter: time.Second,
	WholeBlobs: true, ScanInBackground: true,
}

const liar = "liar"

// run works on c, whose disk may stop at any time, and checks that nothing wrong
// is ever said to be right.
func (w *shared) run(ctx context.Context, c *cache.Cache, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 2))
	for step := range 60 {
		i := rng.IntN(len(w.data))
		origin := []string{"a", "b", liar}[rng.IntN(3)]
		if err := w.step(ctx, c, rng, i, origin); err != nil {
			return fmt.Errorf("step %d, blob %d from %s: %w", step, i, origin, err)
		}
		switch rng.IntN(8) {
		case 0, 1:
			c.Sync(ctx) // fails after the crash
		case 2:
			time.Sleep(3 * time.Second)
		case 3:
			_, _ = c.Sweep(ctx, 0)
		}
	}
	return nil
}

func (w *shared) step(ctx context.Context, c *cache.Cache, rng *rand.Rand, i int, origin string) error {
	x, err := c.Hold(origin, w.descs[i])
	if err != nil {
		return nil // the disk has stopped
	}
	defer x.Release()
	data := w.data[i]
	if origin == liar && !x.Verified() {
		data = bytes.Clone(data)
		data[len(data)/2] ^= 1
	}
	if rng.IntN(4) == 0 { // a piece
		off := rng.IntN(len(data))
		_ = x.Store(ctx, data[off:min(len(data), off+30_000)], int64(off))
		return w.check(x, i, origin)
	}
	fresh := true
	if held, until := x.Extent(0, int64(len(data))); held || until < int64(len(data)) {
		fresh = false
	}
	if x.Store(ctx, data, 0) != nil {
		return w.check(x, i, origin)
	}
	switch {
	case x.Verified():
	case fresh && origin != liar:
		_ = x.MarkVerified()
	default:
		err := x.Verify(ctx, nil)
		if origin == liar && err == nil && !x.Verified() {
			return nil // somebody else's is there
		}
		if origin == liar && err == nil || origin != liar && errors.Is(err, cache.ErrMismatch) {
			return fmt.Errorf("Verify = %w", err)
		}
	}
	if rng.IntN(6) == 0 {
		_ = x.Drop(rng.IntN(2) == 0)
	}
	return w.check(x, i, origin)
}

// check compares what there is of a content, of which that of an honest origin is
// right, and that which is verified whoever it came from.
func (w *shared) check(x *cache.Content, i int, origin string) error {
	if origin == liar && !x.Verified() {
		return nil
	}
	data := w.data[i]
	for off, end := int64(0), int64(len(data)); off < end; {
		held, until := x.Extent(off, end)
		if held {
			p := make([]byte, until-off)
			if _, err := x.ReadAt(p, off); err == nil || errors.Is(err, io.EOF) {
				if !bytes.Equal(p, data[off:until]) {
					return fmt.Errorf("bytes %d to %d are wrong, verified: %v", off, until, x.Verified())
				}
			} else if !errors.Is(err, cache.ErrNotHeld) {
				return err
			}
		}
		off = until
	}
	return nil
}

// left checks all that a process finds that comes after, before and after it has
// scanned the folder, and returns how many blobs are verified.
func (w *shared) left(ctx context.Context, c *cache.Cache) (verified int, err error) {
	for range 2 {
		verified = 0
		for i := range w.data {
			for _, origin := range []string{"a", "b", liar} {
				x, ok := c.Find(origin, w.descs[i].Digest)
				if !ok {
					continue
				}
				if x.Verified() {
					verified++
				}
				err = w.check(x, i, origin)
				x.Release()
				if err != nil {
					return 0, fmt.Errorf("blob %d from %s: %w", i, origin, err)
				}
			}
		}
		synctest.Wait() // for the scan
	}
	return verified, nil
}

func (w *shared) crashAt(ctx context.Context, n int, seed uint64) (verified int, done bool, err error) {
	files, steps := stopping(n, seed)
	c, err := cache.OpenOn(sharedConfig, files)
	if err == nil {
		defer c.Close()
		if err = w.run(ctx, c, seed); err != nil {
			return 0, false, fmt.Errorf("before the crash: %w", err)
		}
		synctest.Wait()
	}
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	for name, rest := range map[string]*disktest.FS{"kill": files.Kill(), "power cut": files.Crash(rng)} {
		k, err := w.reopen(ctx, rest)
		if err != nil {
			return 0, false, fmt.Errorf("after a %s at step %d, seed %d: %w", name, n, seed, err)
		}
		verified += k
	}
	return verified, steps.Load() < int64(n), nil
}

func (w *shared) reopen(ctx context.Context, files *disktest.FS) (int, error) {
	c, err := cache.OpenOn(sharedConfig, files)
	if err != nil {
		return 0, err
	}
	verified, err := w.left(ctx, c)
	if err == nil {
		err = w.run(ctx, c, 99)
	}
	return verified, errors.Join(err, c.Close())
}

// TestSharedCrashAtEveryStep stops the disk at every write step: what the next
// process takes for verified is right, and what an honest origin sent too.
func TestSharedCrashAtEveryStep(t *testing.T) {
	w := newShared()
	for seed := range uint64(2) {
		total := 0
		stride := 5
		if testing.Short() {
			stride = 11
		}
		for n := 1; ; n += stride {
			var done bool
			synctest.Test(t, func(t *testing.T) {
				var k int
				var err error
				if k, done, err = w.crashAt(t.Context(), n, seed); err != nil {
					t.Fatal(err)
				}
				total += k
			})
			if done {
				t.Logf("seed %d: %d steps, %d verified blobs found again", seed, n, total)
				break
			}
			if t.Failed() {
				return
			}
		}
		if total == 0 {
			t.Errorf("seed %d: nothing that was verified was ever found again", seed)
		}
	}
}
