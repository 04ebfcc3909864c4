package pipeline_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/pipeline"
)

func count(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

func TestRunKeepsOrderAndBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var working, most, waiting atomic.Int64
		var got []int
		err := pipeline.Run(t.Context(), 4, count(100), func(_ context.Context, i int) (int, error) {
			most.Store(max(most.Load(), working.Add(1)))
			defer working.Add(-1)
			if n := waiting.Add(1); n > 8 {
				t.Errorf("%d results exist", n)
			}
			time.Sleep(time.Duration(i%7) * time.Millisecond)
			return i, nil
		}, func(i int) error {
			waiting.Add(-1)
			got = append(got, i)
			return nil
		})
		if err != nil || !slices.IsSorted(got) || len(got) != 100 {
			t.Errorf("got %v, %v", got, err)
		}
		if most.Load() != 4 {
			t.Errorf("%d worked at a time, want 4", most.Load())
		}
	})
}

func TestRunEndsWithTheFirstError(t *testing.T) {
	want := errors.New("broken")
	nothing := func(int) error { return nil }
	err := pipeline.Run(t.Context(), 4, count(1000), func(ctx context.Context, i int) (int, error) {
		if i == 10 {
			return 0, want
		}
		return i, nil
	}, nothing)
	if !errors.Is(err, want) {
		t.Errorf("error of work: %v", err)
	}
	err = pipeline.Run(t.Context(), 4, count(1000), func(_ context.Context, i int) (int, error) { return i, nil },
		func(i int) error {
			if i == 10 {
				return want
			}
			return nil
		})
	if !errors.Is(err, want) {
		t.Errorf("error of done: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = pipeline.Run(ctx, 4, count(1000), func(ctx context.Context, i int) (int, error) { return i, ctx.Err() }, nothing)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error after cancelling: %v", err)
	}
}
