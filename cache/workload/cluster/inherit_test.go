package cluster_test

import (
	"slices"
	"testing"

	"github.com/reprise-containers/reprise/cache/workload/cluster"
)

// TestInherit gives a client what another was not sent: all of it in the order in which
// it is due, and however much it is.
func TestInherit(t *testing.T) {
	const n = 30_000
	var even, odd, all []uint64
	for i := range uint64(n) {
		even, odd, all = append(even, 2*i), append(odd, 2*i+1), append(all, 2*i, 2*i+1)
	}
	for _, c := range []struct {
		name              string
		own, others, want []uint64
		finished, refused bool
	}{
		{"by turns", even, odd, all, false, false},
		{"all before", all[n:], all[:n], all, false, false},
		{"all behind", all[:n], all[n:], all, false, false},
		{"into nothing", nil, odd, odd, false, false},
		{"when there is no more", even, odd, all, true, false},
		{"when it was told so", nil, odd, nil, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := cluster.Inherit(c.own, c.others, c.finished)
			if ok == c.refused || !slices.Equal(got, c.want) {
				t.Errorf("%t, with %d items, want %d", ok, len(got), len(c.want))
			}
		})
	}
}
