package cache_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/internal/disk/disktest"
)

// A verified content that loses bytes is nobody's to fill: what comes next under
// its digest belongs to its origin again, or a registry that lies would be believed.
func TestVerifiedLosesBytes(t *testing.T) {
	data, desc := blobOf(300_000, 90)
	lie := bytes.Clone(data)
	for i := range lie {
		lie[i] ^= 1
	}
	for name, damage := range map[string]func(t *testing.T, file string, armed *atomic.Bool){
		"cut":        func(t *testing.T, file string, _ *atomic.Bool) { must(t, os.Truncate(file, 4096)) },
		"unreadable": func(_ *testing.T, _ string, armed *atomic.Bool) { armed.Store(true) },
	} {
		for _, when := range []string{"held", "open", "idle"} {
			t.Run(name+" "+when, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "cache")
				var armed atomic.Bool
				c, err := cache.OpenFailing(cache.Config{Dir: dir, WholeBlobs: true, IdleAfter: time.Nanosecond}, func(kind string) error {
					if kind == "ReadAt" && armed.Load() {
						return syscall.EIO
					}
					return nil
				})
				must(t, err)
				defer c.Close()
				x := hold(t, c, "a", desc)
				must(t, errors.Join(x.Store(t.Context(), data, 0), x.MarkVerified(), c.Sync(t.Context())))
				if when == "idle" {
					x.Release()
					for c.Stats().Open > 0 {
						time.Sleep(10 * time.Millisecond)
					}
				}
				damage(t, filepath.Join(dir, "blobs", "sha256", desc.Digest.Encoded()[:2], desc.Digest.Encoded()+".data"), &armed)
				if when == "open" {
					x.Release()
				}
				if y, ok := c.Find("", desc.Digest); ok {
					if _, err := readAll(y); !errors.Is(err, cache.ErrNotHeld) {
						t.Errorf("reading what is lost: %v", err)
					}
					y.Release()
				}
				armed.Store(false)
				cache.SetPause(c, time.Time{})
				liar := hold(t, c, "liar", desc)
				if liar.Verified() {
					t.Error("what is lost still counts as verified")
				}
				_ = liar.Store(t.Context(), lie, 0)
				if when == "held" {
					_ = x.Store(t.Context(), lie, 0)
				}
				for _, origin := range []string{"", "b"} {
					if y, ok := c.Find(origin, desc.Digest); ok {
						t.Errorf("%q finds something, verified: %v", origin, y.Verified())
						y.Release()
					}
				}
				if err := liar.Verify(t.Context(), nil); !errors.Is(err, cache.ErrMismatch) {
					t.Errorf("Verify of lies = %v", err)
				}
			})
		}
	}
}

// What a registry once said the size was does not keep its blob out for ever.
func TestSizeCorrected(t *testing.T) {
	c := wholeBlobs(t, cache.Config{})
	data, desc := blobOf(5000, 91)
	wrong := desc
	wrong.Size = 4000
	x := hold(t, c, "a", wrong)
	must(t, x.Store(t.Context(), data[:4000], 0))
	if y, err := c.Hold("a", desc); err == nil {
		t.Errorf("a content of two sizes: %d", y.Descriptor().Size)
		y.Release()
	}
	x.Release()
	y := hold(t, c, "a", desc)
	must(t, errors.Join(y.Store(t.Context(), data, 0), y.MarkVerified()))
	if _, err := c.Hold("a", wrong); err == nil {
		t.Error("a verified content is held under another size")
	}
}

// What a descriptor has besides type, digest and size is not kept: its URLs may
// be good for who has them.
func TestDescriptorBare(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	c := wholeBlobs(t, cache.Config{Dir: dir})
	data, desc := blobOf(5000, 92)
	desc.URLs, desc.Annotations = []string{"https://secret.example/"}, map[string]string{"secret": "x"}
	x := hold(t, c, "a", desc)
	must(t, errors.Join(x.Store(t.Context(), data, 0), c.Sync(t.Context()), x.MarkVerified(), c.Close()))
	for _, name := range dataFiles(t, dir, ".json") {
		text, err := os.ReadFile(name)
		must(t, err)
		if strings.Contains(string(text), "secret") {
			t.Errorf("%s", text)
		}
	}
}

// A clock that was a year ahead, or is set back by one, neither stops storing nor
// keeps anything open or from being evicted.
func TestClockJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := disktest.New(1 << 30)
		var broken atomic.Bool
		files.Fault = func(op disktest.Op) error {
			if op.Kind == "WriteAt" && broken.Load() {
				return syscall.EIO
			}
			return nil
		}
		cfg := cache.Config{WholeBlobs: true, Policy: "lru", MaxBytes: 60_000, IdleAfter: time.Second}
		ahead := openOn(t, cfg, files)
		data, desc := blobOf(20_000, 93)
		x := hold(t, ahead, "a", desc)
		must(t, errors.Join(x.Store(t.Context(), data, 0), x.MarkVerified()))
		x.Release()
		must(t, ahead.Close())
		// The clock of a bubble does not go back: what lies a year ahead does the same.
		future := time.Now().Add(365 * 24 * time.Hour)
		must(t, files.SetModTime("blobs/sha256/"+desc.Digest.Encoded()[:2]+"/"+desc.Digest.Encoded()+".json", future))
		c := openOn(t, cfg, files)
		if b := c.Blobs()[0]; b.LastUsed.After(time.Now()) {
			t.Errorf("last used in %v", time.Until(b.LastUsed))
		}
		y, ok := c.Find("b", desc.Digest)
		if !ok {
			t.Fatal("not found")
		}
		y.Release()
		time.Sleep(time.Minute)
		if s := c.Stats(); s.Open != 0 {
			t.Errorf("%d blobs stay open", s.Open)
		}
		cache.SetPause(c, future)
		data2, desc2 := blobOf(20_000, 94)
		z := hold(t, c, "a", desc2)
		must(t, z.Store(t.Context(), data2, 0))
	})
}

// Many store into a blob that nobody has stored into before.
func TestStoreTogether(t *testing.T) {
	c := wholeBlobs(t, cache.Config{})
	for i := range uint64(20) {
		data, desc := blobOf(64<<10, 400+i)
		x := hold(t, c, "a", desc)
		var wg sync.WaitGroup
		for off := int64(0); off < desc.Size; off += 4 << 10 {
			wg.Go(func() {
				if err := x.Store(t.Context(), data[off:off+4<<10], off); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		must(t, x.Verify(t.Context(), nil))
		x.Release()
	}
}
