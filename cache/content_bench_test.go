package cache_test

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
)

// fillWhole opens a cache with n verified blobs of size bytes.
func fillWhole(b *testing.B, cfg cache.Config, n, size int) (*cache.Cache, []ocispec.Descriptor) {
	b.Helper()
	cfg.Dir, cfg.WholeBlobs = filepath.Join(b.TempDir(), "cache"), true
	c := openCache(b, cfg)
	descs := make([]ocispec.Descriptor, n)
	for i := range n {
		var data []byte
		data, descs[i] = blobOf(size, uint64(i))
		storeWhole(b, c, data, descs[i])
	}
	if err := c.Sync(b.Context()); err != nil {
		b.Fatal(err)
	}
	return c, descs
}

func storeWhole(b *testing.B, c *cache.Cache, data []byte, desc ocispec.Descriptor) {
	x, err := c.Hold("a", desc)
	if err != nil {
		b.Fatal(err)
	}
	defer x.Release()
	if err := errors.Join(x.Store(b.Context(), data, 0), x.MarkVerified()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkContentHit finds, reads and releases blobs of 4 KiB, of which all are
// open (100) or each has to be opened again (2,000).
func BenchmarkContentHit(b *testing.B) {
	for _, n := range []int{100, 2000} {
		for _, parallel := range []bool{false, true} {
			b.Run(fmt.Sprintf("blobs=%d/parallel=%v", n, parallel), func(b *testing.B) {
				c, descs := fillWhole(b, cache.Config{}, n, 4096)
				var next atomic.Int64
				one := func(p []byte) {
					x, ok := c.Find("a", descs[int(next.Add(1))%n].Digest)
					if !ok {
						b.Error("not found")
						return
					}
					if _, err := x.ReadAt(p, 0); err != nil && !errors.Is(err, io.EOF) {
						b.Error(err)
					}
					x.Release()
				}
				b.ReportAllocs()
				b.ResetTimer()
				if parallel {
					b.RunParallel(func(pb *testing.PB) {
						for p := make([]byte, 4096); pb.Next(); {
							one(p)
						}
					})
					return
				}
				for p := make([]byte, 4096); b.Loop(); {
					one(p)
				}
			})
		}
	}
}

// BenchmarkContentStore stores and verifies blobs of 4 KiB, and reports the syncs
// each of them costs and how long it takes until all are durable.
func BenchmarkContentStore(b *testing.B) {
	var syncs atomic.Int64
	dir := filepath.Join(b.TempDir(), "cache")
	c, err := cache.OpenFailing(cache.Config{Dir: dir, WholeBlobs: true, CheckpointEvery: time.Second}, func(kind string) error {
		if kind == "Datasync" || kind == "SyncDir" || kind == "WriteFile" || kind == "Sync" {
			syncs.Add(1)
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	seed := uint64(0)
	start := time.Now()
	for b.Loop() {
		seed++
		data, desc := blobOf(4096, seed)
		storeWhole(b, c, data, desc)
	}
	stored := time.Since(start)
	if err := c.Sync(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(syncs.Load())/float64(b.N), "syncs/blob")
	b.ReportMetric(float64(time.Since(start)-stored)/float64(b.N), "ns-to-sync/blob")
}

// BenchmarkContentMemory reports the memory a blob takes that is not open.
func BenchmarkContentMemory(b *testing.B) {
	const n = 20_000
	for b.Loop() {
		c, _ := fillWhole(b, cache.Config{MaxOpen: 16}, 1, 4096)
		before := heap()
		for i := range uint64(n) {
			data, desc := blobOf(100, 1+i)
			storeWhole(b, c, data, desc)
		}
		for c.Stats().Open > 16 {
			time.Sleep(10 * time.Millisecond)
		}
		b.ReportMetric(float64(heap()-before)/n, "B/blob")
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
