package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/cache/internal/disk/disktest"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

var errCrashed = errors.New("the machine has stopped")

// crashWork is a workload that comes by every kind of write step: new blobs,
// growing ones, checkpoints, evictions, discards, idle blobs.
type crashWork struct {
	data  [][]byte
	blobs []blob.Blob // of data
}

func newCrashWork() *crashWork {
	w := new(crashWork)
	for i, size := range []int{2<<20 + 5000, 1<<20 + 1, 700, 300_000} {
		w.data = append(w.data, cachetest.Random(size, uint64(i)))
		w.blobs = append(w.blobs, blobtest.Bytes(w.data[i]))
	}
	return w
}

// crashConfig has room for less than the workload reads.
var crashConfig = cache.Config{MaxBytes: 400_000, Policy: "lru", CheckpointEvery: time.Hour, IdleAfter: time.Second}

// run works on c and compares everything it reads.
func (w *crashWork) run(ctx context.Context, c *cache.Cache, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 1))
	for step := range 60 {
		i := rng.IntN(len(w.data))
		n := 1 + rng.IntN(min(len(w.data[i]), 40_000))
		off := rng.IntN(len(w.data[i]) - n + 1)
		b := c.Blob(w.blobs[i])
		if err := cachetest.Check(ctx, b, w.data[i], off, n); err != nil {
			return fmt.Errorf("step %d, blob %d: %w", step, i, err)
		}
		switch rng.IntN(8) {
		case 0, 1:
			c.Sync(ctx) // fails after the crash
		case 2:
			blob.Discard(b, int64(off), int64(n/2))
		case 3:
			time.Sleep(3 * time.Second)
		}
	}
	return nil
}

// verify reads all blobs, as a whole and in pieces, and returns how many bytes
// came from the cache.
func (w *crashWork) verify(ctx context.Context, c *cache.Cache) (cached int64, err error) {
	for i, data := range w.data {
		b := c.Blob(w.blobs[i])
		for off := 0; off < len(data); off += 65_536 {
			if err := cachetest.Check(ctx, b, data, off, min(65_536, len(data)-off)); err != nil {
				return 0, fmt.Errorf("blob %d: %w", i, err)
			}
		}
	}
	s := c.Stats()
	return s.BytesServed - s.BytesFetched, nil
}

// stopping returns a disk that stops at its n-th write step, and settles now and then
// before that; steps counts them.
func stopping(n int, seed uint64) (files *disktest.FS, steps *atomic.Int64) {
	files, steps = disktest.New(1<<40), new(atomic.Int64)
	files.Fault = func(op disktest.Op) error {
		if op.Looks() {
			return nil
		}
		step := steps.Add(1)
		if step >= int64(n) {
			return errCrashed
		}
		if step%int64(5+3*seed) == 0 {
			files.Settle()
		}
		return nil
	}
	return files, steps
}

// crashAt runs the workload on a disk that stops at its n-th write step and
// checks what the next process finds, after a kill and after a power cut.
// done is true if the workload ended before.
func crashAt(ctx context.Context, w *crashWork, n int, seed uint64) (cached int64, done bool, err error) {
	files, steps := stopping(n, seed)
	c, err := cache.OpenOn(crashConfig, files)
	if err == nil {
		defer c.Close() // after the crash, so it changes nothing
		if err = w.run(ctx, c, seed); err != nil {
			return 0, false, fmt.Errorf("before the crash: %w", err)
		}
		synctest.Wait()
	}
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	for name, left := range map[string]*disktest.FS{"kill": files.Kill(), "power cut": files.Crash(rng)} {
		k, err := reopen(ctx, w, left)
		if err != nil {
			return 0, false, fmt.Errorf("after a %s at step %d, seed %d: %w", name, n, seed, err)
		}
		cached += k
	}
	return cached, steps.Load() < int64(n), nil
}

func reopen(ctx context.Context, w *crashWork, left *disktest.FS) (int64, error) {
	c, err := cache.OpenOn(crashConfig, left)
	if err != nil {
		return 0, err
	}
	cached, err := w.verify(ctx, c)
	if err == nil {
		err = w.run(ctx, c, 99)
	}
	return cached, errors.Join(err, c.Close())
}

// TestCrashAtEveryStep stops the disk at every write step of a workload.
func TestCrashAtEveryStep(t *testing.T) {
	w := newCrashWork()
	for seed := range uint64(3) {
		var total int64
		stride := 1
		if testing.Short() {
			stride = 7
		}
		for n := 1; ; n += stride {
			var done bool
			synctest.Test(t, func(t *testing.T) {
				cached, last, err := crashAt(t.Context(), w, n, seed)
				if err != nil {
					t.Fatal(err)
				}
				total, done = total+cached, last
			})
			if t.Failed() {
				return
			}
			if done {
				t.Logf("seed %d: %d steps, %d bytes came from the cache afterwards", seed, n, total)
				break
			}
		}
		if total == 0 {
			t.Error("no crash left anything to read: the test shows nothing")
		}
	}
}

// TestFlakyDisk has a disk on which every kind of call fails now and then.
func TestFlakyDisk(t *testing.T) {
	w := newCrashWork()
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			files := disktest.New(1 << 40)
			var on atomic.Bool
			faults := make(chan bool, 1<<20) // drawn ahead: Fault runs in parallel
			for range cap(faults) / 16 {
				faults <- rng.IntN(6) == 0
			}
			files.Fault = func(disktest.Op) error {
				if on.Load() && <-faults {
					return syscall.EIO
				}
				return nil
			}
			told := 0
			cfg := crashConfig
			cfg.OnError = func(error) { told++ }
			c, err := cache.OpenOn(cfg, files)
			if err != nil {
				t.Fatal(err)
			}
			for round := range uint64(4) {
				on.Store(true)
				if err := w.run(t.Context(), c, seed+100*round); err != nil {
					t.Fatal(err)
				}
				on.Store(false)
				time.Sleep(2 * time.Minute) // the longest pause is over
				stored := c.Stats().BytesStored
				if err := w.run(t.Context(), c, seed+100*round+50); err != nil {
					t.Fatal(err)
				}
				c.Sync(t.Context())
				if c.Stats().BytesStored == stored {
					t.Fatal("nothing is stored after the disk recovered")
				}
			}
			if told == 0 || told > 4*60 {
				t.Errorf("told %d times of a failing disk", told)
			}
			if used := c.Stats().Bytes; used < 0 || used > cfg.MaxBytes {
				t.Errorf("%d bytes accounted for, the limit is %d", used, cfg.MaxBytes)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if _, err := reopen(t.Context(), w, files); err != nil {
				t.Error(err)
			}
			checkEmptied(t, w, files)
		})
	}
}

// checkEmptied drops all content and checks that nothing is left of it in the
// account or on the disk.
func checkEmptied(t *testing.T, w *crashWork, files *disktest.FS) {
	t.Helper()
	c, err := cache.OpenOn(crashConfig, files)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i, b := range w.blobs {
		blob.Discard(c.Blob(b), 0, int64(len(w.data[i])))
	}
	time.Sleep(time.Minute)
	if s := c.Stats(); s.Bytes != 0 || s.Blobs != 0 || s.Open != 0 {
		t.Errorf("after dropping everything: %+v", s)
	}
	if used := files.Used(); used > 4096 {
		t.Errorf("%d bytes are left on the disk", used)
	}
}

// TestDamagedFiles flips a byte of every map and metadata file, cuts it, empties
// it, and makes it one of an older version, and checks that the blob is forgotten rather than believed.
func TestDamagedFiles(t *testing.T) {
	w := newCrashWork()
	cfg := crashConfig
	cfg.MaxBytes = 0
	damage := map[string]func([]byte) []byte{
		"flip":  func(d []byte) []byte { d = bytes.Clone(d); d[len(d)/2] ^= 0x10; return d },
		"cut":   func(d []byte) []byte { return d[:len(d)/2] },
		"empty": func([]byte) []byte { return nil },
		"older": func(d []byte) []byte {
			d = bytes.Replace(d, []byte("RPRSMAP\x02"), []byte("RPRSMAP\x01"), 1)
			return bytes.Replace(d, []byte(`"version":2`), []byte(`"version":1`), 1)
		},
	}
	for kind, damaged := range damage {
		for _, ext := range []string{".map", ".json"} {
			t.Run(kind+ext, func(t *testing.T) {
				files := disktest.New(1 << 40)
				c, err := cache.OpenOn(cfg, files)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := w.verify(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				for _, b := range w.blobs {
					hex := b.Descriptor().Digest.Encoded()
					name := "blobs/sha256/" + hex[:2] + "/" + hex + ext
					data, err := files.ReadFile(name, 1<<20)
					if err == nil {
						err = files.WriteFile(name, damaged(data))
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				c, err = cache.OpenOn(cfg, files)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				cached, err := w.verify(t.Context(), c)
				if err != nil || cached != 0 && kind != "flip" {
					t.Errorf("%d bytes from damaged files, %v", cached, err)
				}
				if n := c.Stats().Forgotten; n == 0 {
					t.Error("no blob was forgotten")
				}
			})
		}
	}
}
