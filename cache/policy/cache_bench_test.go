package policy_test

import (
	"math/rand/v2"
	"testing"

	"github.com/reprise-containers/reprise/cache/policy"
)

// BenchmarkCache plays accesses by Zipf's law to 10,000 keys on a cache of a tenth of
// them, as a simulator does; one in three misses.
func BenchmarkCache(b *testing.B) {
	const keys, room = 10_000, 1000
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 4, keys-1)
	accesses := make([]uint32, 1<<18)
	for i := range accesses {
		accesses[i] = uint32(zipf.Uint64())
	}
	for _, name := range names {
		b.Run(name, func(b *testing.B) {
			p, err := policy.New[uint32](name)
			if err != nil {
				b.Fatal(err)
			}
			x, expectant := p.(policy.Expectant[uint32])
			held := make([]bool, keys)
			hits, i := 0, 0
			b.ReportAllocs()
			for b.Loop() {
				key := accesses[i&(len(accesses)-1)]
				i++
				if held[key] {
					p.Touch(key, 1)
					hits++
					continue
				}
				if expectant {
					x.Expect(key)
				}
				if p.Len() >= room {
					victim, _, _ := p.Victim()
					held[victim] = false
				}
				p.Add(key, 1)
				held[key] = true
			}
			b.ReportMetric(float64(hits)/float64(i), "hits/op")
		})
	}
}
