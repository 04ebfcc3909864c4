package traces_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/tracelayer"
)

func traceOf(records ...[2]int64) (t tracelayer.Trace) {
	for _, r := range records {
		t = append(t, tracelayer.Record{Op: tracelayer.Read, Off: r[0], Count: r[1]})
	}
	return t
}

func TestMerge(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	all := []*traces.Recording{
		{Name: "old", Time: now.Add(-time.Hour), Trace: traceOf([2]int64{0, 100}, [2]int64{500, 10}, [2]int64{0, 100})},
		{Name: "new", Time: now, Trace: traceOf([2]int64{50, 100})},
	}
	r, err := traces.Merge(all, tracelayer.MergeConfig{HalfLife: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if r.Reads != 1 || r.Bytes != 100 || r.Trace[0].Off != 50 {
		t.Errorf("%+v", r)
	}
	for i, want := range []traces.Merged{
		{Name: "old", Time: all[0].Time, Weight: 0.5, Reads: 3, Bytes: 110, Kept: 50},
		{Name: "new", Time: now, Weight: 1, Reads: 1, Bytes: 100, Kept: 100},
	} {
		if got := r.Recordings[i]; got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

func TestMergeBad(t *testing.T) {
	one := &traces.Recording{Name: "one", Trace: traceOf([2]int64{0, 1}), Layers: []tracelayer.PlanLayer{{Digest: digest.FromString("a"), Size: 1}}}
	any := &traces.Recording{Name: "any", Trace: traceOf([2]int64{5, 1})}
	other := &traces.Recording{Name: "other", Trace: one.Trace, Layers: []tracelayer.PlanLayer{{Digest: digest.FromString("b"), Size: 1}}}
	list := &traces.Recording{Name: "files", Paths: []string{"/a"}}
	for want, c := range map[string]struct {
		all []*traces.Recording
		cfg tracelayer.MergeConfig
	}{
		"files is a list":           {all: []*traces.Recording{one, list}},
		"other is of another image": {all: []*traces.Recording{one, any, other}},
		"enough of them":            {all: []*traces.Recording{one, any}, cfg: tracelayer.MergeConfig{MinShare: 1}},
		"share":                     {all: []*traces.Recording{one}, cfg: tracelayer.MergeConfig{MinShare: math.NaN()}},
	} {
		if _, err := traces.Merge(c.all, c.cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
