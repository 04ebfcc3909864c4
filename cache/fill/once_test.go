package fill_test

import (
	"testing"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/fill"
	"github.com/reprise-containers/reprise/cache/policy"
)

// TestOnceIsNotAgain reads some blobs twice and then, once each, ten times as many as
// there is room for. What was read twice stays: that a blob is read while it comes
// does not make it one that was asked for again.
func TestOnceIsNotAgain(t *testing.T) {
	const (
		limit = 8 << 20
		size  = 200_000 // in part read by way of memory, in part from the file
		twice = 8
	)
	r := newRig(t, fill.Config{}, cache.Config{MaxBytes: limit, Policy: policy.NameS3FIFO})
	get := func(i int) *upstream {
		t.Helper()
		data := random(size, uint64(i))
		up := newUpstream(data)
		if err := r.check(t.Context(), data, up.by("one"), 0, size); err != nil {
			t.Fatal(err)
		}
		return up
	}
	for range 2 {
		for i := range twice {
			get(i)
		}
	}
	for i := range 10 * limit / size {
		get(100 + i)
	}
	kept := 0
	for i := range twice {
		if get(i).bytes() == 0 {
			kept++
		}
	}
	if kept < twice-1 {
		t.Errorf("of %d blobs that were read twice %d survived a scan", twice, kept)
	}
}
