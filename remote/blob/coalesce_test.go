package blob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

func pattern(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * 7 / 3)
	}
	return data
}

func TestCoalesceOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := pattern(100_000)
		f := blobtest.NewFaulty(blobtest.Bytes(data), blobtest.Fault{Delay: time.Second})
		b := blob.Coalesce(f)
		var wg sync.WaitGroup
		check := func(off int64, n int) {
			wg.Go(func() {
				p := make([]byte, n)
				if _, err := b.ReadAt(t.Context(), p, off); err != nil || !bytes.Equal(p, data[off:off+int64(n)]) {
					t.Errorf("read [%d, +%d): wrong, or %v", off, n, err)
				}
			})
			synctest.Wait()
		}
		check(1000, 5000) // the fetch
		check(1000, 5000) // the same
		check(1000, 10)   // at its start
		check(5990, 10)   // at its end
		check(3000, 100)  // within
		if n := len(f.Reads()); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
		check(5990, 11) // past its end
		check(999, 10)  // before its start
		if n := len(f.Reads()); n != 3 {
			t.Errorf("%d fetches, want 3", n)
		}
		wg.Wait()
		check(1000, 10) // it is no cache
		wg.Wait()
		if n := len(f.Reads()); n != 4 {
			t.Errorf("%d fetches, want 4", n)
		}
	})
}

func TestCoalesceLeaderLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := pattern(100)
		f := blobtest.NewFaulty(blobtest.Bytes(data), blobtest.Fault{Delay: time.Minute})
		b := blob.Coalesce(f)
		var wg sync.WaitGroup
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := b.ReadAt(ctx, make([]byte, 100), 0); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("leader: %v", err)
			}
		})
		synctest.Wait()
		start := time.Now()
		p := make([]byte, 100)
		if _, err := b.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, data) {
			t.Errorf("waiter: %v", err)
		}
		if took := time.Since(start); took != time.Minute || len(f.Reads()) != 1 {
			t.Errorf("the waiter took %s and %d fetches: it started anew", took, len(f.Reads()))
		}
		wg.Wait()
	})
}

func TestCoalesceLastOneOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := blobtest.NewFaulty(blobtest.Bytes(make([]byte, 100)), blobtest.Fault{Count: 1, Hang: true})
		b := blob.Coalesce(f)
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*time.Second)
				defer cancel()
				if _, err := b.ReadAt(ctx, make([]byte, 100), 0); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("reader %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		// The hanging fetch was cancelled (else synctest reports its
		// goroutine), and a new reader does not inherit its end.
		if _, err := b.ReadAt(t.Context(), make([]byte, 100), 0); err != nil {
			t.Error(err)
		}
	})
}

func TestCoalesceSharesTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := blobtest.NewFaulty(blobtest.Bytes(make([]byte, 100)),
			blobtest.Fault{Count: 1, Delay: time.Second, Fail: true, Truncate: 10})
		b := blob.Coalesce(f)
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				if n, err := b.ReadAt(t.Context(), make([]byte, 100), 0); !errors.Is(err, blobtest.ErrInjected) || n != 10 {
					t.Errorf("reader %d: %d bytes, %v", i, n, err)
				}
			})
		}
		wg.Wait()
		if n := len(f.Reads()); n != 1 {
			t.Errorf("%d fetches for one error", n)
		}
		if _, err := b.ReadAt(t.Context(), make([]byte, 100), 0); err != nil {
			t.Errorf("the error outlived its readers: %v", err)
		}
	})
}

func TestCoalesceRaisesPriority(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("late=%v", late), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := blobtest.NewFaulty(blobtest.Bytes(make([]byte, 1000)), blobtest.Fault{Delay: time.Second})
				l := blob.NewLimiter(blob.LimitConfig{Requests: 1})
				b := blob.Coalesce(l.Limit(f))
				var wg sync.WaitGroup
				read(t.Context(), &wg, b, 0)
				for i := range int64(5) { // a queue in the background
					read(background(t), &wg, b, 10+i)
				}
				// Another read joins the last of them, urgent at once
				// or only later (a coalesced read above this one).
				ctx, r := blob.WithRaisable(t.Context(), blob.Background)
				if !late {
					r.Raise()
				}
				start := time.Now()
				var took time.Duration
				wg.Go(func() {
					b.ReadAt(ctx, make([]byte, 1), 14)
					took = time.Since(start)
				})
				synctest.Wait()
				r.Raise()
				wg.Wait()
				if took != 2*time.Second {
					t.Errorf("the urgent read waited %s, want its turn after one second", took)
				}
				if n := len(f.Reads()); n != 6 {
					t.Errorf("%d fetches, want 6", n)
				}
			})
		})
	}
}

func TestCoalesceSmallDemandDoesNotWaitForBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := blobtest.NewFaulty(blobtest.Bytes(pattern(1<<20)),
			blobtest.Fault{Count: 1, Delay: time.Minute}, blobtest.Fault{Delay: time.Second})
		b := blob.Coalesce(f)
		var wg sync.WaitGroup
		wg.Go(func() { b.ReadAt(background(t), make([]byte, 1<<20), 0) })
		synctest.Wait()
		start := time.Now()
		if _, err := b.ReadAt(t.Context(), make([]byte, 4096), 8192); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("4 KiB took %s", took)
		}
		wg.Wait()
	})
}

// TestCoalesceStorm has the race detector look at readers that leave at any
// moment, and checks every byte that arrives.
func TestCoalesceStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := pattern(64 << 10)
		f := blobtest.NewFaulty(blobtest.Bytes(data),
			blobtest.Fault{Every: 7, Delay: 3 * time.Millisecond, Fail: true},
			blobtest.Fault{Delay: 5 * time.Millisecond})
		b := blob.Coalesce(f)
		var wg sync.WaitGroup
		for i := range 400 {
			wg.Go(func() {
				time.Sleep(time.Duration(i%40) * time.Millisecond)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%11)*time.Millisecond)
				defer cancel()
				off, n := int64(i%8)*4096, 4096*(1+i%4)
				p := make([]byte, n)
				if _, err := b.ReadAt(ctx, p, off); err == nil && !bytes.Equal(p, data[off:off+int64(n)]) {
					t.Errorf("wrong bytes at %d", off)
				}
			})
		}
		wg.Wait()
	})
}

func BenchmarkCoalesce(b *testing.B) {
	for _, n := range []int{4 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("%dKiB", n>>10), func(b *testing.B) {
			c := blob.Coalesce(blobtest.Bytes(make([]byte, 1<<20)))
			p := make([]byte, n)
			b.ReportAllocs()
			b.SetBytes(int64(n))
			for b.Loop() {
				c.ReadAt(b.Context(), p, 4096)
			}
		})
	}
}
