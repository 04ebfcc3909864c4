package fill_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/fill"
)

// TestManyWhole has many readers of one blob: one request, and everyone's first
// byte before the upstream has sent the last.
func TestManyWhole(t *testing.T) {
	const readers = 100
	data := random(4<<20+12_345, 1)
	r := newRig(t, fill.Config{}, cache.Config{})
	up := newUpstream(data)
	var started atomic.Int64
	all := make(chan struct{})
	up.hook = func(ctx context.Context, o *openedBody) error {
		if o.pos < 1<<20 {
			return nil
		}
		select {
		case <-all:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var group errgroup.Group
	for i := range readers {
		group.Go(func() error {
			rd, done := r.reader(t.Context(), describe(data), up.by(fmt.Sprint(i)), 0, int64(len(data)))
			defer done()
			w := &against{want: data, told: func() {
				if started.Add(1) == readers {
					close(all)
				}
			}}
			if _, err := rd.WriteTo(w); err != nil {
				return fmt.Errorf("reader %d after %d bytes: %w", i, w.got, err)
			}
			if w.got != int64(len(data)) {
				return fmt.Errorf("reader %d got %d bytes", i, w.got)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := len(up.requests()); n != 1 || up.bytes() != int64(len(data)) {
		t.Errorf("%d requests for %d bytes, want 1 for %d", n, up.bytes(), len(data))
	}
	r.settle(data)
}

// TestManyRanges has many readers of ranges of one blob, which overlap.
func TestManyRanges(t *testing.T) {
	const readers, reads = 50, 20
	data := random(16<<20+7, 2)
	r := newRig(t, fill.Config{}, cache.Config{})
	up := newUpstream(data)
	wanted := make([]bool, len(data))
	type span struct{ off, n int64 }
	var plan [readers][reads]span
	dice := random(8*readers*reads, 3)
	for i := range plan {
		for j := range plan[i] {
			d := dice[8*(i*reads+j):]
			n := 1 + int64(d[0])*int64(d[1]) // to 64 KiB
			off := (int64(d[2])<<16 | int64(d[3])<<8 | int64(d[4])) % (int64(len(data)) - n)
			plan[i][j] = span{off, n}
			for k := off; k < off+n; k++ {
				wanted[k] = true
			}
		}
	}
	var group errgroup.Group
	for i := range plan {
		group.Go(func() error {
			for _, s := range plan[i] {
				if err := r.check(t.Context(), data, up.by(fmt.Sprint(i)), s.off, s.n); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	unique := int64(0)
	for _, w := range wanted {
		if w {
			unique++
		}
	}
	up.cheap(t, unique)
	r.unverified(describe(data))
}

// TestRangesAndWhole has readers of ranges and of all of a blob at once. Only what a
// range did not wait for is fetched twice, because the fetch of the whole comes by.
func TestRangesAndWhole(t *testing.T) {
	data := random(24<<20, 4)
	r := newRig(t, fill.Config{}, cache.Config{})
	up := newUpstream(data)
	var group errgroup.Group
	for i := range 20 {
		group.Go(func() error {
			if i%4 == 0 {
				return r.check(t.Context(), data, up.by("whole"), 0, int64(len(data)))
			}
			for j := range 10 {
				off := int64(i*1_234_567+j*765_431) % int64(len(data)-50_000)
				if err := r.check(t.Context(), data, up.by("range"), off, 50_000); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	ahead := int64(0)
	for _, o := range up.requests() {
		if o.who == "range" {
			ahead += o.n
		}
	}
	if sent := up.bytes(); sent > int64(len(data))+ahead {
		t.Errorf("the upstream sent %d bytes of %d, of which %d ahead", sent, len(data), ahead)
	}
	r.settle(data)
}

// TestRestart goes on where an earlier process ended.
func TestRestart(t *testing.T) {
	data := random(6<<20, 5)
	up := newUpstream(data)
	dir := t.TempDir()
	r := newRig(t, fill.Config{}, cache.Config{Dir: dir})
	if err := r.check(t.Context(), data, up.by("before"), 0, 2<<20); err != nil {
		t.Fatal(err)
	}
	r.stop()
	if err := r.cache.Close(); err != nil {
		t.Fatal(err)
	}
	r = newRig(t, fill.Config{}, cache.Config{Dir: dir})
	if err := r.check(t.Context(), data, up.by("after"), 0, int64(len(data))); err != nil {
		t.Fatal(err)
	}
	up.cheap(t, int64(len(data)))
	r.settle(data)
}

// TestSmall reads blobs of sizes about the limits.
func TestSmall(t *testing.T) {
	r := newRig(t, fill.Config{}, cache.Config{})
	for i, size := range []int{1, 2, 4095, 4096, 4097, 64<<10 - 1, 64 << 10, 64<<10 + 1, 256<<10 - 1, 256 << 10, 256<<10 + 1, 1 << 20, 1<<20 + 1} {
		data := random(size, uint64(100+i))
		up := newUpstream(data)
		for range 2 {
			if err := r.check(t.Context(), data, up.by("a"), 0, int64(size)); err != nil {
				t.Fatal(err)
			}
		}
		if up.bytes() != int64(size) {
			t.Errorf("%d bytes were sent of %d", up.bytes(), size)
		}
		r.settle(data)
	}
}

// TestPinhole reads bytes here and there of a block, of which the cache keeps only
// a few ranges and forgets the shortest.
func TestPinhole(t *testing.T) {
	data := random(64<<10, 6)
	r := newRig(t, fill.Config{}, cache.Config{})
	up := newUpstream(data)
	for i := range int64(256) {
		if err := r.check(t.Context(), data, up.by("a"), 16*i, 8-i/32); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(up.requests()); n > 2*256 {
		t.Errorf("%d requests for 256 ranges", n)
	}
}

// TestRounding asks for whole units as far as nothing is fetched twice.
func TestRounding(t *testing.T) {
	data := random(1<<20+100, 7)
	r := newRig(t, fill.Config{Rounding: 64 << 10}, cache.Config{})
	up := newUpstream(data)
	for _, step := range []struct {
		off, n int64
		want   open // its request, none if n is 0
	}{
		{100_000, 10, open{"a", 64 << 10, 64 << 10}},
		{64 << 10, 64 << 10, open{}},
		{60_000, 10_000, open{"a", 0, 64 << 10}}, // the second half is there
		{200_000, 70_000, open{"a", 192 << 10, 128 << 10}},
		{1 << 20, 100, open{"a", 1 << 20, 100}},
		{1<<20 - 1, 1, open{"a", 1<<20 - 64<<10, 64 << 10}},
		{400_000, 1, open{"a", 384 << 10, 64 << 10}},
		{320 << 10, 200_000, open{"a", 320 << 10, 64 << 10}}, // and what is behind it
	} {
		before := len(up.requests())
		if err := r.check(t.Context(), data, up.by("a"), step.off, step.n); err != nil {
			t.Fatal(err)
		}
		asked := up.requests()[before:]
		if step.want.n == 0 && len(asked) > 0 || step.want.n > 0 && (len(asked) == 0 || asked[0] != step.want) {
			t.Errorf("%d bytes at %d: asked for %v, want %v", step.n, step.off, asked, step.want)
		}
	}
}
