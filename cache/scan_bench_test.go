package cache_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache"
)

// BenchmarkStart opens a cache with 10,000 blobs, and reports the time until Open
// returns and until a blob is found, both of a scan in the background, and until
// everything is known.
func BenchmarkStart(b *testing.B) {
	cfg := cache.Config{Dir: filepath.Join(b.TempDir(), "cache"), WholeBlobs: true, ScanInBackground: true}
	const n = 10_000
	c, err := cache.Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	for i := range uint64(n) {
		data, desc := blobOf(100, i)
		storeWhole(b, c, data, desc)
	}
	closing := time.Now()
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
	closed := time.Since(closing)
	_, desc := blobOf(100, n/2)
	for b.Loop() {
		start := time.Now()
		c, err := cache.Open(cfg)
		if err != nil {
			b.Fatal(err)
		}
		opened := time.Since(start)
		x, ok := c.Find("a", desc.Digest)
		if !ok {
			b.Fatal("not found")
		}
		x.Release()
		found := time.Since(start)
		for !c.Scanned() {
			time.Sleep(time.Millisecond)
		}
		b.ReportMetric(opened.Seconds()*1e3, "ms-open")
		b.ReportMetric(found.Seconds()*1e3, "ms-find")
		b.ReportMetric(time.Since(start).Seconds()*1e3, "ms-scan")
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(closed.Seconds()*1e3, "ms-close")
}
