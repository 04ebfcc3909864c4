package replayprogress_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cmd/internal/replayprogress"
)

var errWork = errors.New("work")

// TestLines runs for half a minute at 100 requests a second that gets faster.
func TestLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		start := time.Now()
		err := replayprogress.During(t.Context(), &out, func() replayprogress.State {
			s := time.Since(start).Seconds()
			return replayprogress.State{Fraction: s / 40, Totals: report.Totals{
				Requests: int64(10 * s * s), Failed: int64(s), Lag: 1500 * time.Microsecond, Hits: 3, Misses: int64(s) / 10,
			}}
		}, func(context.Context) error {
			time.Sleep(35 * time.Second)
			return errWork
		})
		if !errors.Is(err, errWork) {
			t.Errorf("error %v", err)
		}
		want := "25 %, 1000 requests, 100/s, late 1.50 ms, 10 failed, 75 % hits, 30s left\n" +
			"50 %, 4000 requests, 300/s, late 1.50 ms, 20 failed, 60 % hits, 20s left\n" +
			"75 %, 9000 requests, 500/s, late 1.50 ms, 30 failed, 50 % hits, 10s left\n"
		if out.String() != want {
			t.Errorf("wrote\n%swant\n%s", &out, want)
		}
	})
}

// TestUnknown: of a trace without end nobody knows how much is left.
func TestUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		err := replayprogress.During(t.Context(), &out, func() replayprogress.State {
			return replayprogress.State{Fraction: -1}
		}, func(context.Context) error {
			time.Sleep(11 * time.Second)
			return nil
		})
		if want := "0 requests, 0/s, late 0 µs, 0 failed\n"; err != nil || out.String() != want {
			t.Errorf("wrote %q, want %q; error %v", &out, want, err)
		}
	})
}

func TestSilent(t *testing.T) {
	err := replayprogress.During(t.Context(), nil, nil, func(context.Context) error { return errWork })
	if !errors.Is(err, errWork) {
		t.Errorf("error %v", err)
	}
}

// terminal returns both ends of a pseudo terminal.
func terminal(t *testing.T) (far, near *os.File) {
	t.Helper()
	far, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	fd := int(far.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	near, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 120}); err != nil {
		t.Fatal(err)
	}
	return far, near
}

// TestBar draws on a real terminal: the bar, what stands behind it, and the last state
// at the end.
func TestBar(t *testing.T) {
	far, near := terminal(t)
	var out bytes.Buffer
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(&out, far) }) // ends with an error when near is closed
	var mu sync.Mutex
	state := replayprogress.State{Fraction: .5, Totals: report.Totals{Requests: 10}}
	drawn := make(chan struct{}, 1)
	err := replayprogress.During(t.Context(), near, func() replayprogress.State {
		mu.Lock()
		defer mu.Unlock()
		select {
		case drawn <- struct{}{}:
		default:
		}
		return state
	}, func(context.Context) error {
		for range 4 {
			<-drawn
		}
		mu.Lock()
		defer mu.Unlock()
		state.Fraction, state.Requests, state.Failed = .9, 18, 2
		return errWork
	})
	if !errors.Is(err, errWork) {
		t.Errorf("error %v", err)
	}
	_ = near.Close()
	wg.Wait()
	for _, part := range []string{"50 %, 10 requests", "90 %, 18 requests", "2 failed", "[====", "----]"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("drew %q, without %q", &out, part)
		}
	}
}
