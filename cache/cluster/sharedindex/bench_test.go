package sharedindex_test

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
)

// BenchmarkMemory says how many bytes of Redis's memory a digest takes, by what is known
// of it: -benchtime 200000x.
func BenchmarkMemory(b *testing.B) {
	// Names in Kubernetes.
	const short, long = "registry-cache-%d.registry-cache:8443", "registry-cache-%d.registry-cache.reg.svc.cluster.local:8443"
	for _, c := range []struct {
		name    string
		holders int
		stored  bool
		origin  string
		replica string
	}{
		{"one holder", 1, false, "", short},
		{"stored", 0, true, "", short},
		{"one holder, stored", 1, true, "", short},
		{"three holders, stored", 3, true, "", short},
		{"eight holders, stored", 8, true, "", short},
		{"not verified, three holders", 3, false, "https://registry-1.docker.io", short},
		{"three holders of 58 bytes, stored", 3, true, "", long},
		{"three holders of 64 bytes, stored", 3, true, "", "abcdef" + long},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := standalone(b)
			before := memory(b, w)
			keys := make([]sharedindex.Key, b.N)
			for i := range keys {
				keys[i] = sharedindex.Key{Digest: fresh(), Origin: c.origin}
			}
			for i := range c.holders {
				x := w.replica(b, fmt.Sprintf(c.replica, i))
				must(b, x.Hold(b.Context(), keys...))
			}
			x := w.replica(b, "x:1")
			for i, k := range keys {
				if c.stored {
					must(b, x.Publish(b.Context(), k.Digest, sharedindex.Stored{Generation: 1795822000000000 + uint64(i), Size: 30 << 20}))
				}
			}
			b.ReportMetric(float64(memory(b, w)-before)/float64(b.N), "redis-B/op")
			b.ReportMetric(0, "ns/op")
		})
	}
	b.Run("lease and claim", func(b *testing.B) {
		w := standalone(b)
		x := w.replica(b, "registry-cache-0.registry-cache:8443")
		before := memory(b, w)
		for range b.N {
			k := sharedindex.Key{Digest: fresh(), Origin: "https://registry-1.docker.io"}
			must(b, x.Release(b.Context(), k, locate(b, x, wanted(k, 0, 1<<20)).Lease.Token, false))
			must(b, x.Unclaim(b.Context(), k.Digest, claim(b, x, k.Digest)))
		}
		b.ReportMetric(float64(memory(b, w)-before)/float64(b.N), "redis-B/op")
		b.ReportMetric(0, "ns/op")
	})
}

var usedMemory = regexp.MustCompile(`used_memory:(\d+)`)

func memory(b *testing.B, w world) int64 {
	b.Helper()
	info, err := w.client(b).Info(b.Context(), "memory").Result()
	must(b, err)
	m := usedMemory.FindStringSubmatch(info)
	if m == nil {
		b.Fatal("Redis does not say what memory it uses")
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	must(b, err)
	return n
}

// BenchmarkCalls measures calls by one caller, and by many at once.
func BenchmarkCalls(b *testing.B) {
	w := standalone(b)
	x := w.replica(b, "a:1")
	k := sharedindex.Key{Digest: fresh()}
	other := w.replica(b, "b:1")
	must(b, other.Hold(b.Context(), k))
	p := ask("a", "r")
	grant(b, x, p, "yes")
	ops := map[string]func() error{
		"locate holder": func() error { _, err := x.Locate(b.Context(), wanted(k, 0, 1)); return err },
		"lease and release": func() error {
			k := sharedindex.Key{Digest: fresh()}
			q, err := x.Locate(b.Context(), wanted(k, 0, 1))
			if err != nil {
				return err
			}
			return x.Release(b.Context(), k, q.Lease.Token, true)
		},
		"granted": func() error { _, err := x.Granted(b.Context(), p); return err },
	}
	for name, f := range ops {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				must(b, f())
			}
		})
		b.Run(name+", 32 at once", func(b *testing.B) {
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := f(); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
