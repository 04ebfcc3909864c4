package chunks_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
)

// BenchmarkVerify reads whole leaves of 2 KiB from memory, in turns with bare
// SHA-256 of the same bytes: "of-sha256" is its speed as a part of that.
func BenchmarkVerify(b *testing.B) {
	const leaf, size = 2048, 16 << 20
	data := random(size)
	lengths := func(yield func(int) bool) {
		for range size / leaf {
			if !yield(leaf) {
				return
			}
		}
	}
	table, root, err := chunks.Build(b.Context(), bytes.NewReader(data), lengths, 0)
	if err != nil {
		b.Fatal(err)
	}
	ref := chunks.Ref{Root: root, Size: int64(len(table))}
	v := chunks.Verify(blobtest.Bytes(data), ref, blobtest.Bytes(table), nil)
	for _, n := range []int{leaf, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", n>>10), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 2))
			p := make([]byte, n)
			var ratios []float64
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				off := rng.Int64N(int64(size-n)/leaf+1) * leaf
				start := time.Now()
				if _, err := v.ReadAt(b.Context(), p, off); err != nil {
					b.Fatal(err)
				}
				took := time.Since(start)
				start = time.Now()
				for at := 0; at < n; at += leaf {
					sha256.Sum256(p[at : at+leaf])
				}
				ratios = append(ratios, float64(time.Since(start))/float64(took))
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "of-sha256")
		})
	}
}

// BenchmarkBuild builds a table of 64 MiB of leaves of 2 KiB, beside the bare
// SHA-256 of all of it.
func BenchmarkBuild(b *testing.B) {
	const leaf = 2048
	data := random(64 << 20)
	lengths := func(yield func(int) bool) {
		for range len(data) / leaf {
			if !yield(leaf) {
				return
			}
		}
	}
	b.SetBytes(int64(len(data)))
	var ratios []float64
	for b.Loop() {
		start := time.Now()
		whole := sha256.New()
		if _, _, err := chunks.Build(b.Context(), io.TeeReader(bytes.NewReader(data), whole), lengths, 0); err != nil {
			b.Fatal(err)
		}
		took := time.Since(start)
		start = time.Now()
		sha256.Sum256(data)
		ratios = append(ratios, float64(time.Since(start))/float64(took))
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "of-sha256")
}
