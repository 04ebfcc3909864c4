package fetchplan_test

import (
	"io"
	"testing"

	"github.com/reprise-containers/reprise/backstore/fetchplan"
	"github.com/reprise-containers/reprise/backstore/zfile"
)

// BenchmarkBuild plans with data and BenchmarkMap without. "of-mapped" is the bytes
// of a plan as a part of those of the blocks that the reads touch.
func BenchmarkBuild(b *testing.B) {
	layers := converted(b, zfile.ZSTD, 300)
	trace, _, _ := record(b, layers, 600)
	m, _, err := fetchplan.Map(b.Context(), layers, trace)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(m.Size())
	b.ReportAllocs()
	for b.Loop() {
		p, _, err := fetchplan.Build(b.Context(), layers, trace, io.Discard)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(p.DataSize())/float64(m.Size()), "of-mapped")
		b.ReportMetric(float64(len(p.Extents)), "extents")
	}
}

func BenchmarkMap(b *testing.B) {
	layers := converted(b, zfile.ZSTD, 300)
	trace, _, _ := record(b, layers, 600)
	b.ReportAllocs()
	for b.Loop() {
		p, _, err := fetchplan.Map(b.Context(), layers, trace)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(p.Extents)), "extents")
	}
}
