package fetchplan_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/reprise-containers/reprise/backstore/fetchplan"
)

// model is a set of numbers, one bool each.
type model []bool

// add adds [from, to) and returns the runs that were not there.
func (m model) add(from, to int64) (fresh [][2]int64) {
	for i := from; i < to; i++ {
		if m[i] {
			continue
		}
		m[i] = true
		if k := len(fresh) - 1; k >= 0 && fresh[k][1] == i {
			fresh[k][1]++
		} else {
			fresh = append(fresh, [2]int64{i, i + 1})
		}
	}
	return fresh
}

// runs returns all runs.
func (m model) runs() [][2]int64 {
	return slices.Clone(m).invert().add(0, int64(len(m)))
}

func (m model) invert() model {
	for i := range m {
		m[i] = !m[i]
	}
	return m
}

// TestSets compares both sets with the model: sizes at and around those of their
// parts, ranges of all lengths.
func TestSets(t *testing.T) {
	for _, n := range []int64{1, 63, 64, 65, 4095, 4096, 4097, 70_000, 64<<10 - 1, 200_000} {
		rng := rand.New(rand.NewPCG(uint64(n), 1))
		marks, cover := fetchplan.NewMarks(n), &fetchplan.Cover{}
		m := make(model, n)
		for range 300 {
			from := rng.Int64N(n)
			to := from + 1 + rng.Int64N(min(n-from, 1<<rng.IntN(18)))
			want := m.add(from, to)
			var got [][2]int64
			for a, b := range marks.Take(from, to) {
				got = append(got, [2]int64{a, b})
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%d numbers: marks of [%d, %d) are %v, want %v", n, from, to, got, want)
			}
			if got := cover.Add(from, to); !slices.Equal(got, want) {
				t.Fatalf("%d numbers: cover of [%d, %d) is %v, want %v", n, from, to, got, want)
			}
		}
		if got, want := cover.All(), m.runs(); !slices.Equal(got, want) {
			t.Errorf("%d numbers: cover has %v, want %v", n, got, want)
		}
	}
}
