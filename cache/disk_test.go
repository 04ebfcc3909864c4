package cache_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/cache/internal/disk/disktest"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

func openOn(t *testing.T, cfg cache.Config, files *disktest.FS) *cache.Cache {
	t.Helper()
	c, err := cache.OpenOn(cfg, files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, cache.Config{Dir: dir})
	if _, err := cache.Open(cache.Config{Dir: dir}); !errors.Is(err, cache.ErrInUse) {
		t.Errorf("opening a folder twice: %v", err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	}
	openCache(t, cache.Config{Dir: dir})
}

func TestReadAfterClose(t *testing.T) {
	data := cachetest.Random(10_000, 1)
	c := openCache(t, cache.Config{})
	b := c.Blob(blobtest.Bytes(data))
	for range 2 {
		if err := cachetest.Check(t.Context(), b, data, 10, 5000); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if err := c.Sync(t.Context()); err == nil {
		t.Error("a closed cache was synced")
	}
}

// TestSizeConflict has two descriptors with one digest and different sizes: one
// lies, and it must not spoil the other.
func TestSizeConflict(t *testing.T) {
	data := cachetest.Random(10_000, 1)
	honest := blobtest.Bytes(data)
	c := openCache(t, cache.Config{})
	for range 2 {
		must(t, cachetest.Check(t.Context(), c.Blob(honest), data, 0, len(data)))
		liar := c.Blob(resized{blobtest.Bytes(data[:5000]), honest.Descriptor().Digest})
		must(t, cachetest.Check(t.Context(), liar, data, 0, 5000))
		if blob.Present(liar, 0, 1) {
			t.Error("a blob of another size is cached under the same digest")
		}
	}
	if s := c.Stats(); s.Hits != 1 || s.Blobs != 1 {
		t.Errorf("%+v", s)
	}
}

// resized is a blob that claims a digest.
type resized struct {
	blob.Blob
	digest digest.Digest
}

func (r resized) Descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{Digest: r.digest, Size: r.Size()}
}

func TestConfig(t *testing.T) {
	for _, cfg := range []cache.Config{
		{}, {Dir: "x", Policy: "best"}, {Dir: "x", MaxBytes: -1}, {Dir: "x", FetchParallel: -1}, {Dir: "x", IdleAfter: -1},
	} {
		if _, err := cache.Open(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

// TestHitAllocates checks that a hit allocates nothing.
func TestHitAllocates(t *testing.T) {
	data := cachetest.Random(1<<20, 1)
	c := openCache(t, cache.Config{MaxBytes: 10 << 20})
	b := c.Blob(blobtest.Bytes(data))
	p := make([]byte, 4096)
	ctx := t.Context()
	read := func() {
		if _, err := b.ReadAt(ctx, p, 5000); err != nil {
			t.Fatal(err)
		}
	}
	read()
	if err := c.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, read); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestStuckDisk has a disk whose writes hang: reads go on, are served from the
// queue until it is full, and nothing waits but background reads.
func TestStuckDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := disktest.New(1 << 40)
		unstick := make(chan struct{})
		files.Fault = func(op disktest.Op) error {
			if op.Kind == "WriteAt" {
				<-unstick
			}
			return nil
		}
		c := openOn(t, cache.Config{QueueBytes: 64 << 10}, files)
		data := cachetest.Random(1<<20, 1)
		inner := blobtest.NewFaulty(blobtest.Bytes(data))
		b := c.Blob(inner)
		for range 2 {
			if err := cachetest.Check(t.Context(), b, data, 0, 64<<10); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(inner.Reads()); n != 1 || !blob.Present(b, 0, 64<<10) {
			t.Errorf("%d fetches of bytes that wait to be stored", n)
		}
		if err := cachetest.Check(t.Context(), b, data, 100<<10, 4096); err != nil {
			t.Fatal(err)
		}
		if n := c.Stats().DroppedStores; n != 1 {
			t.Errorf("%d stores dropped by a full queue", n)
		}
		done := false
		go func() {
			ctx := blob.WithPriority(t.Context(), blob.Background)
			if err := cachetest.Check(ctx, b, data, 200<<10, 4096); err != nil {
				t.Error(err)
			}
			done = true
		}()
		synctest.Wait()
		if done {
			t.Error("a background read did not wait for room")
		}
		close(unstick)
		synctest.Wait()
		if !done || !blob.Present(b, 200<<10, 4096) || c.Stats().DroppedStores != 1 {
			t.Error("the background read was not stored")
		}
	})
}

// TestFullDisk fills the disk from outside: reads go on, and storing goes on
// once there is room again.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const capacity = 8 << 20
		files := disktest.New(capacity)
		var told atomic.Int64
		c := openOn(t, cache.Config{OnError: func(error) { told.Add(1) }}, files)
		data := cachetest.Random(12<<20, 1)
		b := c.Blob(blobtest.Bytes(data))
		for range 3 {
			for off := 0; off < len(data); off += 1 << 18 {
				if err := cachetest.Check(t.Context(), b, data, off, 1<<18); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
		}
		if told.Load() != 1 || c.Stats().StoreErrors == 0 {
			t.Errorf("told %d times of %d errors", told.Load(), c.Stats().StoreErrors)
		}
		files.SetForeign(capacity - files.Used())
		time.Sleep(2 * time.Minute)
		if err := cachetest.Check(t.Context(), b, data, 0, len(data)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		files.SetForeign(0)
		time.Sleep(2 * time.Minute)
		before := c.Stats().BytesStored
		if err := cachetest.Check(t.Context(), b, data, 0, len(data)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if c.Stats().BytesStored == before {
			t.Errorf("nothing is stored although there is room again: %+v", c.Stats())
		}
	})
}

// TestMinFree has others fill the disk: the cache shrinks step by step, stores
// nothing, and starts again when there is room.
func TestMinFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const capacity = 64 << 20
		files := disktest.New(capacity)
		c := openOn(t, cache.Config{MinFreeBytes: 8 << 20}, files)
		data := cachetest.Random(40<<20, 1)
		b := c.Blob(blobtest.Bytes(data))
		read := func() {
			for off := 0; off < len(data); off += 1 << 20 {
				if err := cachetest.Check(t.Context(), b, data, off, 1<<20); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
		}
		read()
		full := c.Stats()
		if full.Bytes < 40<<20 || full.BytesEvicted > 0 {
			t.Fatalf("not stored although there is room: %+v", full)
		}
		files.SetForeign(capacity) // more than the cache can make up for
		time.Sleep(11 * time.Second)
		if got := c.Stats().Bytes; got < full.Bytes/2 || got >= full.Bytes {
			t.Errorf("%d of %d bytes left after one round", got, full.Bytes)
		}
		time.Sleep(10 * time.Minute)
		if got := c.Stats().Bytes; got > 4<<20 {
			t.Errorf("%d bytes left after ten minutes on a full disk", got)
		}
		before := c.Stats().BytesStored
		read()
		if got := c.Stats().BytesStored; got != before {
			t.Errorf("%d bytes stored on a full disk", got-before)
		}
		files.SetForeign(0)
		time.Sleep(2 * time.Minute)
		read()
		if got := c.Stats().BytesStored; got == before {
			t.Error("nothing is stored although there is room again")
		}
	})
}

// TestManyBlobs keeps few of many blobs open, in memory and on disk.
func TestManyBlobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := disktest.New(1 << 40)
		cfg := cache.Config{MaxOpen: 10, IdleAfter: time.Minute}
		c := openOn(t, cfg, files)
		const n = 200
		var blobs [n]blob.Blob
		var data [n][]byte
		for i := range n {
			data[i] = cachetest.Random(3000, uint64(i))
			blobs[i] = blobtest.Bytes(data[i])
		}
		for range 2 {
			for i := range n {
				if err := cachetest.Check(t.Context(), c.Blob(blobs[i]), data[i], 0, 3000); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if open := c.Stats().Open; open > cfg.MaxOpen+1 {
					t.Fatalf("%d blobs are open", open)
				}
			}
		}
		if s := c.Stats(); s.Misses != n || s.Hits != n {
			t.Errorf("%+v", s)
		}
		time.Sleep(2 * time.Minute)
		if s := c.Stats(); s.Open != 0 || s.Blobs != n {
			t.Errorf("%d blobs are open after a pause, %d known", s.Open, s.Blobs)
		}
	})
}

// dataFiles returns the files below dir with the extension ext.
func dataFiles(t *testing.T, dir, ext string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "blobs", "*", "*", "*"+ext))
	if err != nil || len(names) == 0 {
		t.Fatalf("no %s files, %v", ext, err)
	}
	return names
}

// TestFilesTakenAway has somebody remove or cut the files of a cache in use.
func TestFilesTakenAway(t *testing.T) {
	for name, take := range map[string]func(t *testing.T, dir string){
		"everything": func(t *testing.T, dir string) { must(t, os.RemoveAll(filepath.Join(dir, "blobs"))) },
		"data":       func(t *testing.T, dir string) { must(t, os.Remove(dataFiles(t, dir, ".data")[0])) },
		"maps":       func(t *testing.T, dir string) { must(t, os.Remove(dataFiles(t, dir, ".map")[0])) },
		"cut":        func(t *testing.T, dir string) { must(t, os.Truncate(dataFiles(t, dir, ".data")[0], 4096)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			data := cachetest.Random(3<<20, 1)
			c := openCache(t, cache.Config{Dir: dir})
			b := c.Blob(blobtest.Bytes(data))
			ctx := t.Context()
			must(t, cachetest.Check(ctx, b, data, 0, 1<<20))
			must(t, c.Sync(ctx))
			take(t, dir)
			must(t, cachetest.Hammer(ctx, b, data, 2, 50))
			c.Sync(ctx) // notices
			must(t, cachetest.Hammer(ctx, b, data, 2, 50))
			c.Close()
			c = openCache(t, cache.Config{Dir: dir})
			b = c.Blob(blobtest.Bytes(data))
			must(t, cachetest.Hammer(ctx, b, data, 2, 50))
			must(t, c.Sync(ctx))
			if c.Stats().BytesStored == 0 && c.Stats().Misses > 0 {
				t.Error("nothing is stored any more")
			}
		})
	}
}

// TestStrangeFiles puts files into the cache's folders that are not its own:
// they neither keep it from opening nor get lost.
func TestStrangeFiles(t *testing.T) {
	dir := t.TempDir()
	data := cachetest.Random(10_000, 1)
	c := openCache(t, cache.Config{Dir: dir})
	must(t, cachetest.Check(t.Context(), c.Blob(blobtest.Bytes(data)), data, 0, len(data)))
	must(t, c.Close())
	own := filepath.Dir(dataFiles(t, dir, ".data")[0])
	strange := []string{filepath.Join(dir, "blobs/README"), filepath.Join(dir, "blobs/sha256/notes"), filepath.Join(own, "notes.txt")}
	for _, name := range strange {
		must(t, os.WriteFile(name, []byte("hello"), 0o600))
	}
	pipes := []string{filepath.Join(dir, "blobs/pipe"), filepath.Join(dir, "blobs/sha256/pipe")}
	for _, name := range pipes {
		must(t, syscall.Mkfifo(name, 0o600))
	}
	strange = append(strange, pipes...)
	c = openCache(t, cache.Config{Dir: dir})
	if s := c.Stats(); s.Blobs != 1 {
		t.Errorf("%+v", s)
	}
	for _, name := range strange {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestSmallTmpfs fills a real file system of 1 MiB.
func TestSmallTmpfs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a tmpfs needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, 0)) })
	data := cachetest.Random(4<<20, 1)
	c := openCache(t, cache.Config{Dir: dir})
	b := c.Blob(blobtest.Bytes(data))
	must(t, cachetest.Hammer(t.Context(), b, data, 4, 200))
	c.Sync(t.Context())
	s := c.Stats()
	if s.StoreErrors == 0 || !strings.Contains(s.LastError, "no space") {
		t.Errorf("the disk was never full: %+v", s)
	}
	if s.BytesStored == 0 {
		t.Error("nothing was stored")
	}
	// The full disk may keep Close from writing the last map.
	if err := c.Close(); err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	c = openCache(t, cache.Config{Dir: dir, MaxBytes: 512 << 10})
	must(t, cachetest.Hammer(t.Context(), c.Blob(blobtest.Bytes(data)), data, 4, 200))
	must(t, c.Sync(t.Context()))
	if s := c.Stats(); s.StoreErrors > 0 || s.Evictions == 0 || s.Bytes > 512<<10 {
		t.Errorf("with a limit below the disk's size: %+v", s)
	}
}

// TestEvictionUnderReaders checks the bytes of readers that the eviction of
// what they read overtakes, and that the files stay within the limit.
func TestEvictionUnderReaders(t *testing.T) {
	const limit = 4 << 20
	dir := t.TempDir()
	c := openCache(t, cache.Config{Dir: dir, MaxBytes: limit})
	data := cachetest.Random(12<<20, 1)
	b := c.Blob(blobtest.Bytes(data))
	must(t, cachetest.Hammer(t.Context(), b, data, 8, 400))
	must(t, c.Sync(t.Context()))
	s := c.Stats()
	if n := c.BlobBytes(b.Descriptor().Digest); n != s.Bytes {
		t.Errorf("the only blob takes %d bytes of %d", n, s.Bytes)
	}
	if s.Evictions == 0 || s.Hits == 0 {
		t.Errorf("the test shows nothing: %+v", s)
	}
	st, err := os.Stat(dataFiles(t, dir, ".data")[0])
	must(t, err)
	// File systems round up and count their own index.
	if used := st.Sys().(*syscall.Stat_t).Blocks * 512; used > limit*9/8 || s.Bytes > limit {
		t.Errorf("the file takes %d bytes, %d are accounted for, the limit is %d", used, s.Bytes, limit)
	}
}

// TestEvictionOvertakesRead evicts a range while a read of it is between
// looking at the map and reading the file, which by then is a hole.
func TestEvictionOvertakesRead(t *testing.T) {
	for name, n := range map[string]int{"hit": 4096, "partial hit": 8192} {
		t.Run(name, func(t *testing.T) {
			files := disktest.New(1 << 40)
			var armed atomic.Bool
			reading, goOn := make(chan struct{}), make(chan struct{})
			files.Fault = func(op disktest.Op) error {
				if op.Kind == "ReadAt" && armed.CompareAndSwap(true, false) {
					close(reading)
					<-goOn
				}
				return nil
			}
			c := openOn(t, cache.Config{MaxBytes: 20_000, Policy: "lru"}, files)
			data := cachetest.Random(8<<20, 1)
			b := c.Blob(blobtest.Bytes(data))
			must(t, cachetest.Check(t.Context(), b, data, 0, 4096))
			must(t, c.Sync(t.Context()))
			armed.Store(true)
			result := make(chan error)
			go func() { result <- cachetest.Check(t.Context(), b, data, 0, n) }()
			<-reading
			for off := 1 << 20; off < 5<<20; off += 1 << 20 {
				must(t, cachetest.Check(t.Context(), b, data, off, 4096))
				must(t, c.Sync(t.Context()))
			}
			if blob.Present(b, 0, 512) {
				t.Fatal("the range was not evicted: the test shows nothing")
			}
			close(goOn)
			must(t, <-result)
		})
	}
}
