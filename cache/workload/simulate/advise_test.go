package simulate_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

func recommend(t *testing.T, d *simulate.Decoded, limits simulate.Limits) *simulate.Advice {
	t.Helper()
	a, err := simulate.Recommend(t.Context(), d, limits)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := a.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	t.Log(text.String())
	return a
}

// large returns a stream of objects of some hundred kilobytes.
func large(seed uint64, n, objects int) *simulate.Decoded {
	d := stream(seed, n, objects, false)
	for i := range d.Sizes {
		d.Sizes[i] = 1 + d.Sizes[i]*2000
	}
	return d
}

// What is recommended is what a simulation with these settings has, and no policy has
// noticeably more.
func TestRecommend(t *testing.T) {
	for seed := range uint64(3) {
		for _, byBytes := range []bool{false, true} {
			d := large(seed, 6000, 800)
			limit := d.Bytes() / 20
			a := recommend(t, d, simulate.Limits{Disk: limit, ByBytes: byBytes})
			ratio := simulate.Tally.Ratio
			if byBytes {
				ratio = simulate.Tally.ByteRatio
			}
			gc := simulate.GC{Disk: true, Layers: a.Layers, Manifests: a.Manifests}
			same := run(t, d, simulate.Config{Policies: []string{a.Policy}, Sizes: []simulate.Size{{Bytes: a.MaxSize}}, GC: gc}).Cells[0]
			if same.All != a.Expected.All {
				t.Errorf("expected are %+v, these settings have %+v", a.Expected.All, same.All)
			}
			all := run(t, d, simulate.Config{Policies: policy.Names(), Sizes: []simulate.Size{{Bytes: limit}}, GC: simulate.GC{Disk: true}}).Cells
			for _, c := range all {
				if ratio(c.All) > ratio(a.Expected.All)+0.006 { // 0.002 for each choice
					t.Errorf("recommended is %s, with %.4f; %s has %.4f", a.Policy, ratio(a.Expected.All), c.Policy, ratio(c.All))
				}
			}
			if !slices.ContainsFunc(append(a.Tried, a.Expected), func(c simulate.Cell) bool { return c.Policy == a.Policy && c.Capacity == limit }) {
				t.Errorf("what %s has with all of %d bytes is not told", a.Policy, limit)
			}
			if a.MaxSize > limit || len(a.Reasons) < 4 {
				t.Errorf("%d of %d bytes, because of %q", a.MaxSize, limit, a.Reasons)
			}
		}
	}
}

// A limit that is not reached is left as it is, whatever the policy.
func TestRecommendRoom(t *testing.T) {
	d := large(1, 5000, 300)
	a := recommend(t, d, simulate.Limits{Disk: 10 * d.Bytes()})
	if a.Policy != policy.NameS3FIFO || a.MaxSize != 10*d.Bytes() {
		t.Errorf("recommended is %s with %d bytes", a.Policy, a.MaxSize)
	}
	a = recommend(t, d, simulate.Limits{Disk: 10 * d.Bytes(), Policies: []string{"fifo", "lru"}})
	if a.Policy != "fifo" {
		t.Errorf("recommended is %s, fifo does as well and is preferred", a.Policy)
	}
}

// What is used for half a day and then never again is not kept for ever.
func TestRecommendUnused(t *testing.T) {
	d := &simulate.Decoded{Timed: true, Nodes: 1}
	for day := range 40 {
		for hour := range 12 {
			for i := range 20 {
				id := uint32(day*20 + i)
				if hour == 0 {
					d.Sizes = append(d.Sizes, 100_000)
					d.Kinds = append(d.Kinds, trace.Blob)
				}
				d.Accesses.Add(simulate.Access{ID: id, Time: int64(time.Duration(day*24+hour) * time.Hour)})
			}
		}
	}
	a := recommend(t, d, simulate.Limits{Disk: 1 << 30})
	if a.Layers.MaxUnused == 0 || a.Layers.MaxUnused > 12*time.Hour || a.Layers.MaxAge != 0 {
		t.Errorf("recommended are %+v", a.Layers)
	}
	if !slices.ContainsFunc(a.Reasons, func(s string) bool { return strings.HasPrefix(s, "maxUnused ") }) {
		t.Errorf("no reason is given for it: %q", a.Reasons)
	}
}

func TestRecommendErrors(t *testing.T) {
	if _, err := simulate.Recommend(t.Context(), stream(1, 100, 10, true), simulate.Limits{Disk: 1}); !errors.Is(err, simulate.ErrNoSizes) {
		t.Error(err)
	}
	for _, l := range []simulate.Limits{{}, {Disk: -1}, {Disk: 1, Policies: []string{"best"}}} {
		if _, err := simulate.Recommend(t.Context(), stream(1, 100, 10, false), l); err == nil {
			t.Errorf("%+v is no error", l)
		}
	}
}
