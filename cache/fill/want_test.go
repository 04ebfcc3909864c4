package fill_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/fill"
)

// want wants extents and waits until that has ended.
func (r *rig) want(data []byte, src fill.Source, w fill.Wanted) error {
	x := r.hold(describe(data))
	defer x.Release()
	ended := make(chan error, 1)
	w.Done = func(err error) { ended <- err }
	if err := r.group.Want(x, src, w); err != nil {
		return err
	}
	return <-ended
}

func TestWant(t *testing.T) {
	data := random(8<<20, 80)
	r := newRig(t, quick, cache.Config{})
	up := newUpstream(data)
	if err := r.check(t.Context(), data, up.by("a"), 1<<20, 100_000); err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	extents := []fill.Extent{{Off: 5 << 20, End: 8 << 20}, {Off: 1<<20 - 10, End: 1<<20 + 100_010}, {Off: 7 << 20, End: 100 << 20}, {Off: 5, End: 5}}
	err := r.want(data, up.by("warm"), fill.Wanted{Extents: extents, Budget: func(_ context.Context, n int) error {
		asked.Add(int64(n))
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	const fresh = 3<<20 + 20
	if up.bytes() != fresh+100_000 || asked.Load() != fresh {
		t.Errorf("%d bytes were sent, the budget was asked for %d, want %d more than 100000", up.bytes(), asked.Load(), fresh)
	}
	if n := r.group.Stats().Background; n != fresh {
		t.Errorf("%d bytes are counted as background, want %d", n, fresh)
	}
	for _, e := range extents[:2] {
		if err := r.check(t.Context(), data, up.refusing("b", refusal(403)), e.Off, e.End-e.Off); err != nil {
			t.Error(err)
		}
	}
}

func TestWantEnds(t *testing.T) {
	data := random(3<<20, 81)
	all := []fill.Extent{{Off: 0, End: int64(len(data))}}
	t.Run("refused", func(t *testing.T) {
		r := newRig(t, quick, cache.Config{})
		refused := refusal(401)
		if err := r.want(data, newUpstream(data).refusing("a", refused), fill.Wanted{Extents: all}); !errors.Is(err, refused) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no budget", func(t *testing.T) {
		r := newRig(t, quick, cache.Config{})
		up, broke := newUpstream(data), errors.New("no more")
		err := r.want(data, up.by("a"), fill.Wanted{Extents: all, Budget: func(context.Context, int) error { return broke }})
		if !errors.Is(err, broke) || up.bytes() > 0 {
			t.Errorf("got %v after %d bytes", err, up.bytes())
		}
	})
	t.Run("no room", func(t *testing.T) {
		r := newRig(t, quick, cache.Config{MaxBytes: 64 << 10})
		if err := r.want(data, newUpstream(data).by("a"), fill.Wanted{Extents: all}); !errors.Is(err, cache.ErrNotStored) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("whole", func(t *testing.T) {
		r := newRig(t, quick, cache.Config{})
		if err := r.want(data, newUpstream(data).by("a"), fill.Wanted{Extents: all}); err != nil {
			t.Error(err)
		}
		r.settle(data)
	})
	t.Run("wrong", func(t *testing.T) {
		r := newRig(t, quick, cache.Config{})
		lie := append([]byte(nil), data...)
		lie[0] ^= 1
		_ = r.want(data, newUpstream(lie).by("a"), fill.Wanted{Extents: all})
		eventually(t, "it is found out", func() bool { return r.group.Stats().Mismatches > 0 })
		r.unverified(describe(data))
	})
	t.Run("stopped", func(t *testing.T) {
		r := newRig(t, quick, cache.Config{})
		up := newUpstream(data)
		up.hook = func(ctx context.Context, _ *openedBody) error {
			<-ctx.Done()
			return ctx.Err()
		}
		x := r.hold(describe(data))
		defer x.Release()
		ended := make(chan error, 300)
		n := 0
		for ; n < 300; n++ {
			err := r.group.Want(x, up.by("a"), fill.Wanted{Extents: all, Done: func(err error) { ended <- err }})
			if errors.Is(err, fill.ErrBusy) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if n == 300 {
			t.Error("there is no limit to what may wait")
		}
		r.stop()
		for range n {
			if err := <-ended; err == nil {
				t.Error("it was fetched after the end")
			}
		}
		if err := r.group.Want(x, up.by("a"), fill.Wanted{Extents: all}); !errors.Is(err, fill.ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestDemandMeetsWant has a reader need what is fetched in the background.
func TestDemandMeetsWant(t *testing.T) {
	data := random(2<<20, 82)
	r := newRig(t, quick, cache.Config{})
	up := newUpstream(data)
	goOn := make(chan struct{})
	up.hook = func(ctx context.Context, o *openedBody) error {
		if o.pos >= 500_000 {
			<-goOn
		}
		return ctx.Err()
	}
	wanted := make(chan error, 1)
	go func() {
		wanted <- r.want(data, up.by("warm"), fill.Wanted{Extents: []fill.Extent{{Off: 0, End: int64(len(data))}}})
	}()
	eventually(t, "it begins", func() bool { return up.bytes() >= 400_000 })
	read := make(chan error, 1)
	go func() { read <- r.check(t.Context(), data, up.by("a"), 0, int64(len(data))) }()
	eventually(t, "the reader waits", func() bool { return r.group.Stats().Waiting > 0 })
	close(goOn)
	if err := <-wanted; err != nil {
		t.Error(err)
	}
	if err := <-read; err != nil {
		t.Error(err)
	}
	up.cheap(t, int64(len(data)))
	r.settle(data)
}

// TestComplete has the rest of a blob fetched after a range of it was read.
func TestComplete(t *testing.T) {
	data := random(5<<20, 83)
	config := quick
	config.Complete = true
	r := newRig(t, config, cache.Config{})
	up := newUpstream(data)
	for i := range 3 {
		if err := r.check(t.Context(), data, up.by(fmt.Sprint(i)), int64(i)*1_000_000, 10_000); err != nil {
			t.Fatal(err)
		}
	}
	r.settle(data)
	up.cheap(t, int64(len(data)))
	// One whose source refuses is not followed up.
	other := random(1<<20, 84)
	if _, err := r.read(t.Context(), describe(other), other, newUpstream(other).refusing("b", refusal(401)), 0, 1000); err == nil {
		t.Error("it was not refused")
	}
}

// TestCompleteWaits completes nothing as long as somebody waits for the network.
func TestCompleteWaits(t *testing.T) {
	data, busy := random(2<<20, 85), random(1<<20, 86)
	config := quick
	config.Complete = true
	r := newRig(t, config, cache.Config{})
	up, other := newUpstream(data), newUpstream(busy)
	goOn := make(chan struct{})
	other.hook = func(ctx context.Context, _ *openedBody) error {
		<-goOn
		return ctx.Err()
	}
	demand := make(chan error, 1)
	go func() { demand <- r.check(t.Context(), busy, other.by("a"), 0, int64(len(busy))) }()
	eventually(t, "it waits", func() bool { return r.group.Stats().Waiting > 0 })
	if err := r.check(t.Context(), data, up.by("b"), 0, 1000); err != nil {
		t.Fatal(err)
	}
	// What is warmed meanwhile is not held up by what waits until that is over.
	if err := r.want(data, up.by("warm"), fill.Wanted{Extents: []fill.Extent{{Off: 1 << 20, End: 1<<20 + 1000}}}); err != nil {
		t.Error(err)
	}
	if n := up.bytes(); n != 2000 {
		t.Errorf("%d bytes were fetched although somebody waits", n)
	}
	close(goOn)
	if err := <-demand; err != nil {
		t.Error(err)
	}
	r.settle(data)
	up.cheap(t, int64(len(data)))
}
