package replay_test

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/reprise-containers/reprise/tracelayer"
)

// What is noted of the use of a replay goes when it is old, whether anybody reads
// or not.
func TestUseExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 300, true)
		use := w.layers[0].target.Use
		run(t, w.job(nil))
		if n := use.Watched(); n != len(w.plan.Extents) {
			t.Errorf("%d of %d extents are watched", n, len(w.plan.Extents))
		}
		time.Sleep(5 * time.Minute)
		w.plan.Extents = append(w.plan.Extents, tracelayer.Extent{Off: 299 * leaf, Size: leaf})
		run(t, w.job(nil))
		time.Sleep(6 * time.Minute)
		if n := use.Watched(); n != 1 {
			t.Errorf("%d extents are watched after the first expired", n)
		}
		time.Sleep(5 * time.Minute)
		if n := use.Watched(); n != 0 {
			t.Errorf("%d extents are watched after all expired", n)
		}
	})
}

// What notes the use of a replay does not keep its plan.
func TestUseKeepsNoPlan(t *testing.T) {
	w := newWorld(t, 300, true)
	run(t, w.job(nil))
	plan := weak.Make(w.plan)
	w.plan = &tracelayer.Plan{}
	for range 100 {
		if runtime.GC(); plan.Value() == nil {
			break
		}
	}
	if plan.Value() != nil {
		t.Error("a plan outlives its replay")
	}
	if w.layers[0].target.Use.Watched() == 0 {
		t.Error("nothing is watched")
	}
}
