package tier_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/tier"
)

// completing is a store that stores all bytes at once and completes them slowly.
type completing struct {
	*memory
	takes time.Duration
}

func (s completing) Create(ctx context.Context, name string, r io.Reader, size int64) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.memory.Create(ctx, name, bytes.NewReader(data), size)
}

// Completing an object may take longer than its bytes, but not for ever.
func TestCompletingTakesLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBlob(1000, 1)
		for takes, want := range map[time.Duration]error{4 * time.Minute: nil, 6 * time.Minute: tier.ErrSilent} {
			l := newTier(t, completing{newMemory(), takes})
			err := l.Put(t.Context(), b.digest, b.object(1), bytes.NewReader(b.data))
			if !errors.Is(err, want) || l.Stats().Writing.Away != (want != nil) {
				t.Errorf("in %v: %v, %+v", takes, err, l.Stats())
			}
		}
	})
}

// stuck is a store that says nothing to some calls.
type stuck struct {
	*memory
	tidy, list, remove bool
	pace               time.Duration // between what is listed
	removes            *int
}

func wait(ctx context.Context, stuck bool) error {
	if !stuck {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (s stuck) Tidy(ctx context.Context, _ string, _ time.Time, alive func()) (tier.Removed, error) {
	for range 3 {
		time.Sleep(s.pace)
		alive()
	}
	return tier.Removed{}, wait(ctx, s.tidy)
}

func (s stuck) List(ctx context.Context, folder string, f func(tier.Entry) error) error {
	err := s.memory.List(ctx, folder, func(e tier.Entry) error {
		time.Sleep(s.pace)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return f(e)
	})
	return errors.Join(err, wait(ctx, s.list))
}

func (s stuck) Remove(ctx context.Context, name string) error {
	*s.removes++
	if err := wait(ctx, s.remove); err != nil {
		return err
	}
	return s.memory.Remove(ctx, name)
}

// A sweep ends when the store says nothing for the timeout, and not while it gets on.
func TestSweepOfAStuckStore(t *testing.T) {
	for what, s := range map[string]stuck{"nothing": {}, "tidying": {tidy: true}, "listing": {list: true}, "removing": {remove: true}} {
		synctest.Test(t, func(t *testing.T) {
			s.memory, s.pace, s.removes = newMemory(), 9*time.Second, new(int)
			for i := range 5 {
				s.at(9, objectName(newBlob(1, uint64(i)), 1), 1000)
			}
			began := time.Now()
			report, err := newTier(t, s).Sweep(context.Background(), tier.SweepConfig{MaxBytes: 1000})
			if took := time.Since(began); took > 2*time.Minute {
				t.Errorf("%s is stuck: it took %v", what, took)
			}
			switch {
			case what == "nothing":
				if err != nil || report.Objects != 1 || *s.removes != 4 {
					t.Errorf("%+v after %d: %v", report, *s.removes, err)
				}
			case !errors.Is(err, tier.ErrSilent) || *s.removes > 1:
				t.Errorf("%s is stuck: %+v after %d: %v", what, report, *s.removes, err)
			}
		})
	}
}
