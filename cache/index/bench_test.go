package index_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/index"
)

// manyLinks is how many links the benchmarks of a start have: of a registry that
// many use.
const manyLinks = 100_000

// likely returns link n of many: half of them tags of some thousand repositories,
// half the digests these lead to.
func likely(n int) index.Link {
	repo := fmt.Sprintf("team-%d/service-%d", n%40, n%2000)
	d := digest.FromString(fmt.Sprint(n / 2))
	k := index.Key{Scheme: "https", Host: "registry.example", Repository: repo, Kind: index.KindManifests, Reference: string(d)}
	if n%2 == 0 {
		k.Reference, k.Accept = fmt.Sprintf("v1.%d.%d", n/2000, n%7), "oci"
	}
	at := time.Unix(1_700_000_000+int64(n), 0).UTC()
	return index.Link{
		Key: k, Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: 1500},
		FetchedAt: at, CheckedAt: at,
	}
}

// plant writes the files of n links into dir, and returns their names.
func plant(b *testing.B, dir string, n int) (files []string) {
	b.Helper()
	for k := range n {
		l := likely(k)
		data, err := index.Encode(l)
		if err != nil {
			b.Fatal(err)
		}
		id := l.Key.ID()
		name := filepath.Join(dir, id[:2], id+".json")
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(name, data, 0o600); err != nil {
			b.Fatal(err)
		}
		files = append(files, name)
	}
	return files
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkScan starts an index of many links: the time as a multiple of what it
// takes to read their files one after the other, and the memory of each.
func BenchmarkScan(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "index")
	files := plant(b, dir, manyLinks)
	for b.Loop() {
		start := time.Now()
		for _, name := range files {
			if _, err := os.ReadFile(name); err != nil {
				b.Fatal(err)
			}
		}
		reading := time.Since(start)
		before := heap()
		i, err := index.Open(dir, index.Config{})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		var wg sync.WaitGroup
		start = time.Now()
		wg.Go(func() { _ = i.Run(ctx) })
		for !i.Scanned() {
			time.Sleep(time.Millisecond)
		}
		scanning := time.Since(start)
		cancel()
		wg.Wait()
		if i.Len() != manyLinks {
			b.Fatalf("%d links", i.Len())
		}
		b.ReportMetric(scanning.Seconds()/reading.Seconds(), "scan/read")
		b.ReportMetric(float64(heap()-before)/manyLinks, "B/link")
		if err := i.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFlush makes changes durable that came within one interval.
func BenchmarkFlush(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			i, err := index.Open(filepath.Join(b.TempDir(), "index"), index.Config{})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				for k := range n {
					if err := i.Put(likely(k)); err != nil {
						b.Fatal(err)
					}
				}
				if err := i.Flush(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/link")
			if err := i.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkLookup looks for links that are there, among many.
func BenchmarkLookup(b *testing.B) {
	i, err := index.Open(filepath.Join(b.TempDir(), "index"), index.Config{})
	if err != nil {
		b.Fatal(err)
	}
	const n = 10_000
	keys := make([]index.Key, n)
	for k := range n {
		l := likely(k)
		keys[k] = l.Key
		if err := i.Put(l); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for k := 0; pb.Next(); k++ {
			if _, ok := i.Lookup(keys[k%n]); !ok {
				b.Error("a link is gone")
			}
			i.Touch(keys[k%n])
		}
	})
}
