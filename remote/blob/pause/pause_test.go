package pause_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/remote/blob/pause"
)

func TestFor(t *testing.T) {
	for _, c := range []struct {
		wait, alive time.Duration // alive: 0 for ever, negative not at all
		whole       bool
		took        time.Duration
	}{
		{time.Minute, 0, true, time.Minute},
		{time.Minute, time.Hour, true, time.Minute},
		{time.Minute, time.Second, false, time.Second},
		{time.Minute, -1, false, 0},
		{0, 0, true, 0},
		{-time.Minute, 0, true, 0},
		{0, -1, false, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.alive < 0 {
				cancel()
			} else if c.alive > 0 {
				time.AfterFunc(c.alive, cancel)
			}
			begin := time.Now()
			if whole := pause.For(ctx, c.wait); whole != c.whole || time.Since(begin) != c.took {
				t.Errorf("%+v: %t after %v", c, whole, time.Since(begin))
			}
		})
	}
}
