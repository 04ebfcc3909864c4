package cache_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

// benchSize is small enough to stay in the page cache.
const benchSize = 64 << 20

// benchFiles returns a blob that is cached completely and, opened by itself,
// the file it is cached in.
func benchFiles(b *testing.B, cfg cache.Config) (blob.Blob, *os.File) {
	data := cachetest.Random(benchSize, 9)
	cfg.Dir = b.TempDir()
	c := openCache(b, cfg)
	cached := c.Blob(blobtest.Bytes(data))
	if err := cachetest.Check(b.Context(), cached, data, 0, len(data)); err != nil {
		b.Fatal(err)
	}
	if err := c.Sync(b.Context()); err != nil {
		b.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(cfg.Dir, "blobs/*/*/*.data"))
	if err != nil || len(names) != 1 {
		b.Fatal(names, err)
	}
	f, err := os.Open(names[0])
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return cached, f
}

// batchReads is how many reads of one kind follow each other before the other
// kind has its turn, so that both see the same noise.
const batchReads = 200

// BenchmarkHit reads cached ranges at random. ratio is the time of the same
// reads of its file by the time through the cache. An op is batchReads
// reads of each.
func BenchmarkHit(b *testing.B) {
	for _, policy := range []string{"s3fifo", "lru"} {
		for _, size := range []int{4 << 10, 128 << 10} {
			b.Run(policy+"/"+byteName(size), func(b *testing.B) {
				cached, plain := benchFiles(b, cache.Config{Policy: policy})
				p := make([]byte, size)
				rng := rand.New(rand.NewPCG(1, 2))
				ctx := b.Context()
				batch := func(read func(off int64) error) time.Duration {
					start := time.Now()
					for range batchReads {
						if err := read(rng.Int64N(benchSize - int64(size))); err != nil {
							b.Fatal(err)
						}
					}
					return time.Since(start)
				}
				var through, direct time.Duration
				b.ReportAllocs()
				for b.Loop() {
					through += batch(func(off int64) error { _, err := cached.ReadAt(ctx, p, off); return err })
					direct += batch(func(off int64) error { _, err := plain.ReadAt(p, off); return err })
				}
				b.ReportMetric(float64(through)/float64(b.N*batchReads), "ns/read")
				b.ReportMetric(float64(direct)/float64(through), "ratio")
			})
		}
	}
}

// BenchmarkHitParallel is BenchmarkHit with 4 KiB reads on all processors.
func BenchmarkHitParallel(b *testing.B) {
	cached, plain := benchFiles(b, cache.Config{})
	const size = 4 << 10
	ctx := b.Context()
	run := func(read func(p []byte, off int64) (int, error), n int) time.Duration {
		start := time.Now()
		var wg sync.WaitGroup
		for i := range runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				p := make([]byte, size)
				rng := rand.New(rand.NewPCG(1, uint64(i)))
				for range n {
					if _, err := read(p, rng.Int64N(benchSize-size)); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		return time.Since(start)
	}
	const reads = 1000
	var through, direct time.Duration
	for b.Loop() {
		through += run(func(p []byte, off int64) (int, error) { return cached.ReadAt(ctx, p, off) }, reads)
		direct += run(plain.ReadAt, reads)
	}
	b.ReportMetric(float64(through)/float64(b.N*reads), "ns/read")
	b.ReportMetric(float64(direct)/float64(through), "ratio")
}

// BenchmarkMiss reads 4 KiB ranges once, from an origin in memory: what a miss
// costs beside the network. dropped is the share that came too fast to be
// stored.
func BenchmarkMiss(b *testing.B) {
	const size = 4 << 10
	data := cachetest.Random(benchSize, 9)
	c := openCache(b, cache.Config{})
	cached := c.Blob(blobtest.Bytes(data))
	p := make([]byte, size)
	ctx := b.Context()
	b.ReportAllocs()
	off := int64(0)
	for b.Loop() {
		if off == benchSize {
			blob.Discard(cached, 0, benchSize)
			off = 0
		}
		if _, err := cached.ReadAt(ctx, p, off); err != nil {
			b.Fatal(err)
		}
		off += size
	}
	b.ReportMetric(float64(c.Stats().DroppedStores)/float64(b.N), "dropped/op")
}

// BenchmarkStore is the same writes as BenchmarkMiss queues, done at once: what
// a reader would wait for if it stored itself, on a disk nobody else uses.
func BenchmarkStore(b *testing.B) {
	const size = 4 << 10
	f, err := os.Create(filepath.Join(b.TempDir(), "plain"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	p := cachetest.Random(size, 9)
	var off int64
	for b.Loop() {
		if off == benchSize {
			f.Truncate(0)
			off = 0
		}
		if _, err := f.WriteAt(p, off); err != nil {
			b.Fatal(err)
		}
		off += size
	}
}

func byteName(n int) string {
	if n >= 1<<20 {
		return string(rune('0'+n>>20)) + "MiB"
	}
	return map[int]string{4 << 10: "4KiB", 128 << 10: "128KiB"}[n]
}
