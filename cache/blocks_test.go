package cache_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

// blockRange is where a compressed block lies in its blob.
type blockRange struct {
	off int64
	n   int
}

// everySecondBlock cuts a blob of benchSize bytes into ranges as long as
// compressed blocks of 4 KiB are, and returns every second one: the most ranges
// that a blob is held in as long as it is read by the block.
func everySecondBlock() (list []blockRange) {
	rng := rand.New(rand.NewPCG(3, 3))
	for off, i := int64(0), 0; ; i++ {
		n := 600 + rng.IntN(2400)
		if off+int64(n) > benchSize {
			return list
		}
		if i%2 == 0 {
			list = append(list, blockRange{off, n})
		}
		off += int64(n)
	}
}

// BenchmarkHitBlock reads compressed blocks at random from a blob of which
// every second one is held. The numbers are those of BenchmarkHit.
func BenchmarkHitBlock(b *testing.B) {
	cached, plain := benchFiles(b, cache.Config{})
	blob.Discard(cached, 0, benchSize)
	blocks := everySecondBlock()
	p := make([]byte, 4096)
	ctx := b.Context()
	for _, x := range blocks {
		if _, err := cached.ReadAt(ctx, p[:x.n], x.off); err != nil {
			b.Fatal(err)
		}
	}
	for _, x := range blocks {
		for !blob.Present(cached, x.off, int64(x.n)) {
			if _, err := cached.ReadAt(ctx, p[:x.n], x.off); err != nil {
				b.Fatal(err)
			}
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	batch := func(read func(p []byte, off int64) error) time.Duration {
		start := time.Now()
		for range batchReads {
			x := blocks[rng.IntN(len(blocks))]
			if err := read(p[:x.n], x.off); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(start)
	}
	var through, direct time.Duration
	b.ReportAllocs()
	for b.Loop() {
		through += batch(func(p []byte, off int64) error { _, err := cached.ReadAt(ctx, p, off); return err })
		direct += batch(func(p []byte, off int64) error { _, err := plain.ReadAt(p, off); return err })
	}
	b.ReportMetric(float64(through)/float64(b.N*batchReads), "ns/read")
	b.ReportMetric(float64(direct)/float64(through), "ratio")
}

// BenchmarkMissBlock reads every second compressed block once, in order and at
// random, from an origin in memory. An op is one block, stored.
func BenchmarkMissBlock(b *testing.B) {
	blocks := everySecondBlock()
	data := cachetest.Random(benchSize, 9)
	p := make([]byte, 4096)
	for _, order := range []string{"ordered", "random"} {
		b.Run(order, func(b *testing.B) {
			c := openCache(b, cache.Config{QueueBytes: 1 << 30})
			cached := c.Blob(blobtest.Bytes(data))
			ctx := b.Context()
			if order == "random" {
				rand.New(rand.NewPCG(1, 2)).Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if i == len(blocks) {
					if err := c.Sync(ctx); err != nil {
						b.Fatal(err)
					}
					blob.Discard(cached, 0, benchSize)
					i = 0
				}
				if _, err := cached.ReadAt(ctx, p[:blocks[i].n], blocks[i].off); err != nil {
					b.Fatal(err)
				}
				i++
			}
			if err := c.Sync(ctx); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(c.Stats().BytesFetched)/float64(c.Stats().BytesServed), "fetched/read")
		})
	}
}
