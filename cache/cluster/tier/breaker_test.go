package tier_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/tier"
)

var errStore = errors.New("the store is broken")

// While the store is broken it is asked once for each pause, and pauses grow from 1 s
// to 30 s; when it works again all is as before.
func TestPausesGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		l, b := newTier(t, m), newBlob(1000, 1)
		put(t, l, b, 1)
		m.fail(errStore)
		began, before := time.Now(), m.asked()
		var at []time.Duration
		for time.Since(began) < 3*time.Minute {
			_, err := read(t, l, b, 1, 0, 1000)
			if !errors.Is(err, errStore) && !errors.Is(err, tier.ErrAway) {
				t.Fatal(err)
			}
			if asked := m.asked(); asked > before {
				at, before = append(at, time.Since(began)), asked
			}
			time.Sleep(100 * time.Millisecond)
		}
		want := []time.Duration{0, 1, 3, 7, 15, 31, 61, 91, 121, 151}
		if len(at) != len(want) {
			t.Fatalf("asked at %v", at)
		}
		for i, d := range at {
			if (d - want[i]*time.Second).Abs() > 100*time.Millisecond*time.Duration(i) {
				t.Errorf("asked at %v", at)
			}
		}
		if s := l.Stats(); !s.Reading.Away || !s.Reading.Since.Equal(began) || s.Reading.Error == "" || s.Writing.Away || s.ReadErrors != uint64(len(at)) || s.Refused == 0 {
			t.Errorf("stats are %+v", s)
		}
		m.fail(nil)
		time.Sleep(30 * time.Second)
		for range 3 {
			if got, err := read(t, l, b, 1, 0, 1000); err != nil || !bytes.Equal(got, b.data) {
				t.Fatal(err)
			}
		}
		if s := l.Stats(); s.Reading.Away {
			t.Errorf("stats are %+v", s)
		}
		m.fail(errStore) // long after: the pause is short again
		time.Sleep(time.Minute)
		_, _ = read(t, l, b, 1, 0, 1000)
		m.fail(nil)
		time.Sleep(time.Second)
		if _, err := read(t, l, b, 1, 0, 1000); err != nil {
			t.Error(err)
		}
	})
}

// A store that works for moments only is not asked each second.
func TestFlappingIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		l, b := newTier(t, m), newBlob(1000, 1)
		put(t, l, b, 1)
		before := m.asked()
		for range 600 { // a minute
			m.fail(nil)
			_, _ = read(t, l, b, 1, 0, 1000)
			m.fail(errStore)
			_, _ = read(t, l, b, 1, 0, 1000)
			time.Sleep(100 * time.Millisecond)
		}
		if asked := m.asked() - before; asked > 14 {
			t.Errorf("asked %d times", asked)
		}
	})
}

// slow is a store whose Opens wait.
type slow struct {
	*memory
	wait chan struct{}
}

func (s slow) List(ctx context.Context, folder string, f func(tier.Entry) error) error {
	select {
	case <-s.wait:
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.memory.List(ctx, folder, f)
}

// One call finds out whether the store is back, and others do not wait for it; if that
// one is left, another does.
func TestOneProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		s := slow{m, make(chan struct{})}
		l, b := newTier(t, s), newBlob(1000, 1)
		put(t, l, b, 1)
		m.fail(errStore)
		if _, err := read(t, l, b, 1, 0, 1); !errors.Is(err, errStore) {
			t.Fatal(err)
		}
		m.fail(nil)
		time.Sleep(2 * time.Second)
		find := func(ctx context.Context) chan error {
			done := make(chan error, 1)
			go func() { _, _, err := l.Find(ctx, b.digest); done <- err }()
			synctest.Wait()
			return done
		}
		ctx, cancel := context.WithCancel(t.Context())
		probe := find(ctx)
		if err := <-find(t.Context()); !errors.Is(err, tier.ErrAway) {
			t.Errorf("beside the probe: %v", err)
		}
		cancel()
		if err := <-probe; !errors.Is(err, context.Canceled) {
			t.Errorf("the probe that was left: %v", err)
		}
		probe = find(t.Context())
		close(s.wait)
		if err := <-probe; err != nil {
			t.Errorf("the second probe: %v", err)
		}
		if err := <-find(t.Context()); err != nil || l.Stats().Reading.Away {
			t.Errorf("after the probe: %v", err)
		}
	})
}

// A store that says nothing is away after the timeout, and what is not there is not
// an error of the store.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		l, b := newTier(t, slow{m, make(chan struct{})}), newBlob(1000, 1)
		if _, err := read(t, l, b, 1, 0, 1); !errors.Is(err, fs.ErrNotExist) || l.Stats().Reading.Away {
			t.Errorf("what is not there: %v", err)
		}
		began := time.Now()
		if _, _, err := l.Find(t.Context(), b.digest); !errors.Is(err, tier.ErrSilent) || time.Since(began) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if _, err := read(t, l, b, 1, 0, 1); !errors.Is(err, tier.ErrAway) {
			t.Errorf("after that: %v", err)
		}
	})
}

// Writing and reading are away each by itself.
func TestWritingIsAwayByItself(t *testing.T) {
	m := newMemory()
	l, b := newTier(t, m), newBlob(1000, 1)
	put(t, l, b, 1)
	m.fail(errStore)
	write := func() error { return l.Put(t.Context(), b.digest, b.object(2), bytes.NewReader(b.data)) }
	if err := write(); !errors.Is(err, errStore) {
		t.Error(err)
	}
	m.fail(nil)
	if err := write(); !errors.Is(err, tier.ErrAway) {
		t.Error(err)
	}
	if err := l.Remove(t.Context(), b.digest, 1); !errors.Is(err, tier.ErrAway) {
		t.Error(err)
	}
	if _, err := read(t, l, b, 1, 0, 1000); err != nil {
		t.Error(err)
	}
}
