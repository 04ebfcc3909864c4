package blob_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

// slow returns a blob whose reads take a second, and what it was asked.
func slow(script ...blobtest.Fault) *blobtest.Faulty {
	return blobtest.NewFaulty(blobtest.Bytes(make([]byte, 1<<20)),
		append(script, blobtest.Fault{Delay: time.Second})...)
}

func background(t *testing.T) context.Context {
	return blob.WithPriority(t.Context(), blob.Background)
}

// read starts a read of one byte at off.
func read(ctx context.Context, wg *sync.WaitGroup, b blob.Blob, off int64) {
	wg.Go(func() { b.ReadAt(ctx, make([]byte, 1), off) })
	synctest.Wait() // so that reads arrive in the order of the calls
}

func offsets(f *blobtest.Faulty) (offs []int64) {
	for _, r := range f.Reads() {
		offs = append(offs, r.Off)
	}
	return offs
}

func TestLimitDemandFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := slow()
		l := blob.NewLimiter(blob.LimitConfig{Requests: 1, Background: 1})
		b := l.Limit(f)
		var wg sync.WaitGroup
		read(background(t), &wg, b, 0)
		for i := range int64(3) {
			read(background(t), &wg, b, 10+i)
			read(t.Context(), &wg, b, 20+i)
		}
		if s := l.Stats(); s.InFlight != 1 || s.InFlightBackground != 1 || s.Waiting != 6 || s.WaitingBackground != 3 {
			t.Errorf("stats %+v", s)
		}
		wg.Wait()
		if got, want := offsets(f), []int64{0, 20, 21, 22, 10, 11, 12}; !slices.Equal(got, want) {
			t.Errorf("served in the order %v, want %v", got, want)
		}
		if s := l.Stats(); s != (blob.LimiterStats{}) {
			t.Errorf("left behind: %+v", s)
		}
	})
}

func TestLimitKeepsSlotsForDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := slow()
		l := blob.NewLimiter(blob.LimitConfig{Requests: 4, Background: 2})
		b := l.Limit(f)
		var wg sync.WaitGroup
		for i := range int64(10) {
			read(background(t), &wg, b, i)
		}
		if n := len(f.Reads()); n != 2 {
			t.Errorf("%d background reads in flight, want 2", n)
		}
		read(t.Context(), &wg, b, 100)
		read(t.Context(), &wg, b, 101)
		if got := offsets(f); !slices.Equal(got, []int64{0, 1, 100, 101}) {
			t.Errorf("a demand read waited behind background reads: %v", got)
		}
		wg.Wait()
	})
}

func TestLimitRaise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := slow()
		b := blob.NewLimiter(blob.LimitConfig{Requests: 1, Background: 1}).Limit(f)
		var wg sync.WaitGroup
		read(t.Context(), &wg, b, 0)
		read(background(t), &wg, b, 1)
		ctx, r := blob.WithRaisable(t.Context(), blob.Background)
		read(ctx, &wg, b, 2)
		read(t.Context(), &wg, b, 3)
		if blob.PriorityOf(ctx) != blob.Background {
			t.Error("raised too early")
		}
		r.Raise()
		r.Raise() // no effect
		if blob.PriorityOf(ctx) != blob.Demand {
			t.Error("not raised")
		}
		wg.Wait()
		if got, want := offsets(f), []int64{0, 3, 2, 1}; !slices.Equal(got, want) {
			t.Errorf("served in the order %v, want %v", got, want)
		}
	})
}

func TestLimitCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := slow()
		l := blob.NewLimiter(blob.LimitConfig{Requests: 1})
		b := l.Limit(f)
		var wg sync.WaitGroup
		read(t.Context(), &wg, b, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := b.ReadAt(ctx, make([]byte, 1), 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if s := l.Stats(); s.Waiting != 0 || s.InFlight != 1 {
			t.Errorf("after a waiter left: %+v", s)
		}
		wg.Wait()
		if s := l.Stats(); s != (blob.LimiterStats{}) {
			t.Errorf("left behind: %+v", s)
		}
	})
}

// TestLimitStorm lets reads come, go and turn urgent at random moments.
func TestLimitStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := blobtest.NewFaulty(blobtest.Bytes(make([]byte, 1000)), blobtest.Fault{Delay: 7 * time.Millisecond})
		l := blob.NewLimiter(blob.LimitConfig{Requests: 3, Background: 1})
		b := l.Limit(f)
		var wg sync.WaitGroup
		for i := range 300 {
			wg.Go(func() {
				ctx, r := blob.WithRaisable(t.Context(), blob.Priority(i%2))
				ctx, cancel := context.WithTimeout(ctx, time.Duration(i%100)*time.Millisecond+time.Millisecond)
				defer cancel()
				time.AfterFunc(time.Duration(i%50)*time.Millisecond, r.Raise)
				b.ReadAt(ctx, make([]byte, 1), int64(i))
			})
		}
		wg.Wait()
		if s := l.Stats(); s != (blob.LimiterStats{}) {
			t.Errorf("left behind: %+v", s)
		}
	})
}

func TestLimitConfigValidate(t *testing.T) {
	for _, c := range []blob.LimitConfig{{Requests: -1}, {Background: -1}, {Requests: 2, Background: 3}} {
		if c.Validate() == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
	for _, c := range []blob.LimitConfig{{}, {Requests: 1}, {Requests: 2, Background: 2}} {
		if err := c.Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
