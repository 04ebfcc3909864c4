package stall_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/remote/blob/stall"
)

const limit = 10 * time.Second

// cut waits for d and returns what is said of the transfer then.
func cut(w *stall.Watch, d time.Duration) error {
	select {
	case <-time.After(d):
	case <-w.Context().Done():
	}
	return w.Explain(w.Context().Err())
}

func isCut(t *testing.T, err error, after time.Duration) {
	t.Helper()
	e, ok := errors.AsType[*stall.Error](err)
	if !ok || e.After != after || !e.Timeout() {
		t.Errorf("it ended with %v, not after %s", err, after)
	}
}

func TestWatch(t *testing.T) {
	for name, try := range map[string]func(t *testing.T, w *stall.Watch){
		"waits for long": func(t *testing.T, w *stall.Watch) {
			w.Start()
			isCut(t, cut(w, limit+time.Second), limit)
		},
		"does not wait": func(t *testing.T, w *stall.Watch) {
			w.Start()
			w.Stop()
			if err := cut(w, time.Hour); err != nil {
				t.Error(err)
			}
		},
		"gets on": func(t *testing.T, w *stall.Watch) {
			for range 10 {
				w.Start()
				if err := cut(w, limit-time.Second); err != nil {
					t.Error(err)
				}
			}
		},
		"may take longer": func(t *testing.T, w *stall.Watch) {
			w.Extend(3 * limit)
			if err := cut(w, 3*limit-time.Second); err != nil {
				t.Error(err)
			}
			w.Start()
			isCut(t, cut(w, 4*limit), 3*limit)
		},
		"other direction": func(t *testing.T, w *stall.Watch) {
			w.Beside().Start()
			isCut(t, cut(w, limit+time.Second), limit)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := stall.New(t.Context(), limit)
				defer w.End()
				try(t, w)
			})
		})
	}
}

// What ends for another reason is not a stall, and an end that is none has no error.
func TestOtherEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	w := stall.New(ctx, time.Hour)
	w.Start()
	cancel()
	if err := w.Explain(w.Context().Err()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	w.End()
	synctest.Test(t, func(t *testing.T) {
		w := stall.New(t.Context(), limit)
		w.Start()
		<-w.Context().Done()
		if err := w.Explain(nil); err != nil {
			t.Error(err)
		}
	})
}
