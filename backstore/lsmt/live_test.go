package lsmt_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// TestLiveIndex changes an index and a plain array of sectors, and compares
// after each step; often enough for leaves to be cut, joined and dropped.
func TestLiveIndex(t *testing.T) {
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 17))
		const disk = 60_000
		x := &lsmt.LiveIndex{}
		model := make([]uint64, disk) // mapped sector, 1 for zeroed, 0 for none
		next := uint64(8)
		for i := range 30_000 {
			first := rnd.Uint64N(disk)
			n := 1 + rnd.Uint64N(3)
			if rnd.IntN(200) == 0 {
				n = 1 + rnd.Uint64N(10_000)
			}
			n = min(n, disk-first)
			kind := rnd.IntN(8)
			for j := range n {
				model[first+j] = [3]uint64{0, 1, next + j}[min(kind, 2)]
			}
			var dead uint64
			before := x.Stored()
			stored := uint64(0)
			switch kind {
			case 0:
				dead = x.Cut(first, first+n)
			case 1:
				dead = x.Put(first, n, 8, true)
			default:
				dead = x.Put(first, n, next, false)
				stored = n
				next += n + rnd.Uint64N(2)
			}
			if x.Stored() != before-dead+stored {
				t.Fatalf("step %d: %d sectors stored, were %d, %d died, %d came", i, x.Stored(), before, dead, stored)
			}
			if i%1000 == 0 || i == 29_999 {
				checkLive(t, x, model)
			}
		}
	}
}

func checkLive(t *testing.T, x *lsmt.LiveIndex, model []uint64) {
	t.Helper()
	got := make([]uint64, len(model))
	end := int64(0)
	segments := x.Segments()
	for _, s := range segments {
		if s.Offset < end || s.Length < 1 || s.Length > 16383 {
			t.Fatalf("segment %+v after sector %d", s, end)
		}
		end = s.Offset + s.Length
		for j := range s.Length {
			got[s.Offset+j] = 1
			if !s.Zeroed {
				got[s.Offset+j] = uint64(s.Mapped + j)
			}
		}
	}
	if !slices.Equal(got, model) || len(segments) != x.Len() {
		t.Fatalf("index of %d segments differs from the model, or has %d", x.Len(), len(segments))
	}
	for sector := uint64(0); sector < uint64(len(model)); sector += 97 {
		i := slices.IndexFunc(segments, func(s lsmt.Segment) bool { return s.Offset+s.Length > int64(sector) })
		s, ok := x.Find(sector)
		if ok != (i >= 0) || ok && s != segments[i] {
			t.Fatalf("found %+v for sector %d", s, sector)
		}
	}
}

// BenchmarkLiveIndex overwrites blocks of an index of two million segments.
func BenchmarkLiveIndex(b *testing.B) {
	const blocks = 2 << 20
	x := &lsmt.LiveIndex{}
	rnd := rand.New(rand.NewPCG(1, 18))
	next := uint64(8)
	for _, i := range rnd.Perm(blocks) {
		x.Put(uint64(i)*8, 8, next, false)
		next += 9
	}
	b.ReportAllocs()
	for b.Loop() {
		x.Put(rnd.Uint64N(blocks)*8, 8, next, false)
		next += 9
	}
}
