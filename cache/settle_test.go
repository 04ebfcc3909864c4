package cache_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/internal/disk/disktest"
)

// TestSettleMany verifies many small blobs: a checkpoint makes them durable with a
// few syncs, or, where the file system can't be synced or fails in between, one by
// one. After a power cut all of them are there.
func TestSettleMany(t *testing.T) {
	const blobs = 300
	for _, c := range []struct {
		name  string
		fails func(sync int64) bool // the n-th sync of the file system
		most  int64                 // syncs of any kind
	}{
		{"together", func(int64) bool { return false }, 4},
		{"never", func(int64) bool { return true }, 4 * blobs},
		{"second", func(n int64) bool { return n == 2 }, 4 * blobs},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := disktest.New(1 << 30)
			var syncs, all atomic.Int64
			files.Fault = func(op disktest.Op) error {
				switch op.Kind {
				case "Sync":
					all.Add(1)
					if c.fails(syncs.Add(1)) {
						return syscall.EIO
					}
				case "Datasync", "SyncDir", "WriteFile":
					all.Add(1)
				}
				return nil
			}
			one, err := cache.OpenOn(cache.Config{WholeBlobs: true, CheckpointEvery: time.Hour, MaxOpen: 2 * blobs}, files)
			must(t, err)
			defer one.Close()
			descs := make([]ocispec.Descriptor, blobs)
			for i := range descs {
				var data []byte
				data, descs[i] = blobOf(100+i, 200+uint64(i))
				x := hold(t, one, "a", descs[i])
				must(t, errors.Join(x.Store(t.Context(), data, 0), x.MarkVerified()))
				x.Release()
			}
			must(t, one.Sync(t.Context()))
			if n := all.Load(); n > c.most {
				t.Errorf("%d syncs for %d blobs", n, blobs)
			}
			left, err := cache.OpenOn(cache.Config{WholeBlobs: true}, files.Crash(rand.New(rand.NewPCG(1, 1))))
			must(t, err)
			defer left.Close()
			for i, desc := range descs {
				x, ok := left.Find("b", desc.Digest)
				if !ok {
					t.Fatalf("blob %d is lost", i)
				}
				want, _ := blobOf(100+i, 200+uint64(i))
				if got, err := readAll(x); err != nil || string(got) != string(want) {
					t.Errorf("blob %d is wrong: %v", i, err)
				}
				x.Release()
			}
		})
	}
}

// TestSettleStopped cuts the power at each step while many are settled.
func TestSettleStopped(t *testing.T) {
	const blobs = 6
	found := 0
	for stop := int64(1); ; stop++ {
		files := disktest.New(1 << 30)
		var steps atomic.Int64
		var armed atomic.Bool
		files.Fault = func(op disktest.Op) error {
			if !armed.Load() || op.Kind == "ReadAt" || strings.HasPrefix(op.Kind, "Stat") {
				return nil
			}
			if steps.Add(1) >= stop {
				return errCrashed
			}
			return nil
		}
		c, err := cache.OpenOn(cache.Config{WholeBlobs: true, CheckpointEvery: time.Hour}, files)
		must(t, err)
		for i := range blobs {
			data, desc := blobOf(5000, 300+uint64(i))
			x := hold(t, c, "a", desc)
			must(t, errors.Join(x.Store(t.Context(), data, 0), x.MarkVerified()))
			x.Release()
		}
		armed.Store(true)
		_ = c.Sync(t.Context())
		done := steps.Load() < stop
		for seed := range uint64(8) {
			left, err := cache.OpenOn(cache.Config{WholeBlobs: true}, files.Crash(rand.New(rand.NewPCG(seed, uint64(stop)))))
			must(t, err)
			for i := range blobs {
				want, desc := blobOf(5000, 300+uint64(i))
				x, ok := left.Find("a", desc.Digest)
				if !ok {
					continue
				}
				got, err := readAll(x)
				if err == nil && string(got) != string(want) {
					t.Errorf("stopped at %d, seed %d: blob %d is wrong, verified: %v", stop, seed, i, x.Verified())
				}
				if x.Verified() && err == nil {
					found++
				}
				x.Release()
			}
			must(t, left.Close())
		}
		c.Close()
		if done {
			break
		}
	}
	if found == 0 {
		t.Error("nothing was ever found again: the test shows nothing")
	}
}
