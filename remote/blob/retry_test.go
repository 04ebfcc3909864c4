package blob_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

// busy is an error that asks to come back later.
type busy time.Duration

func (b busy) Error() string             { return "busy" }
func (b busy) Temporary() bool           { return true }
func (b busy) RetryAfter() time.Duration { return time.Duration(b) }

func TestRetryHoldsUntilTheSourceIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := []byte("held for an hour")
		f := blobtest.NewFaulty(blobtest.Bytes(data), blobtest.Fault{Fail: true})
		go func() {
			time.Sleep(time.Hour)
			f.Script()
		}()
		start := time.Now()
		p := make([]byte, len(data))
		if _, err := blob.Retry(f, blob.RetryConfig{}).ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, data) {
			t.Fatalf("read %q, %v", p, err)
		}
		if took := time.Since(start); took < time.Hour || took > time.Hour+10*time.Second {
			t.Errorf("came back after %s, want an hour and at most the longest wait", took)
		}
		// Waits of 5 s on average: some 720 tries, not one per millisecond.
		if n := len(f.Reads()); n < 400 || n > 1500 {
			t.Errorf("%d tries in an hour", n)
		}
	})
}

func TestRetryDeadline(t *testing.T) {
	for name, fault := range map[string]blobtest.Fault{
		"failing": {Fail: true},
		"hanging": {Hang: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := blobtest.NewFaulty(blobtest.Bytes(make([]byte, 10)), blobtest.Fault{Count: 1, Fail: true}, fault)
				start := time.Now()
				_, err := blob.Retry(f, blob.RetryConfig{Deadline: time.Minute}).ReadAt(t.Context(), make([]byte, 10), 0)
				if !errors.Is(err, blob.ErrReadDeadline) || !errors.Is(err, blobtest.ErrInjected) {
					t.Errorf("error %v names neither the deadline nor the cause", err)
				}
				if took := time.Since(start); took != time.Minute {
					t.Errorf("gave up after %s", took)
				}
			})
		})
	}
}

func TestRetryDeadlineOfTheFirstTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := blobtest.NewFaulty(blobtest.Bytes(make([]byte, 10)), blobtest.Fault{Hang: true})
		_, err := blob.Retry(f, blob.RetryConfig{Deadline: time.Second}).ReadAt(t.Context(), make([]byte, 10), 0)
		if !errors.Is(err, blob.ErrReadDeadline) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}

func TestRetryAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := blobtest.NewFaulty(blobtest.Bytes(make([]byte, 10)), blobtest.Fault{Fail: true})
		_, err := blob.Retry(f, blob.RetryConfig{Attempts: 3}).ReadAt(t.Context(), make([]byte, 10), 0)
		if !errors.Is(err, blobtest.ErrInjected) || len(f.Reads()) != 3 {
			t.Errorf("%d tries, error %v", len(f.Reads()), err)
		}
	})
}

func TestRetryContinuesAfterWhatCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := []byte("0123456789abcdefghij")
		f := blobtest.NewFaulty(blobtest.Bytes(data), blobtest.Fault{Truncate: 3})
		p := make([]byte, 20)
		// Two attempts suffice for seven cuts, since each made progress.
		n, err := blob.Retry(f, blob.RetryConfig{Attempts: 2}).ReadAt(t.Context(), p, 0)
		if err != nil || n != 20 || !bytes.Equal(p, data) {
			t.Fatalf("read %d bytes %q, %v", n, p, err)
		}
		for i, r := range f.Reads() {
			if r.Off != int64(3*i) {
				t.Errorf("read %d started at %d", i, r.Off)
			}
		}
	})
}

func TestRetryStopsAtPermanentErrors(t *testing.T) {
	gone := errors.New("gone")
	f := blobtest.NewFaulty(blobtest.Bytes(make([]byte, 10)), blobtest.Fault{Err: blob.Permanent(gone)})
	_, err := blob.Retry(f, blob.RetryConfig{}).ReadAt(t.Context(), make([]byte, 10), 0)
	if !errors.Is(err, gone) || len(f.Reads()) != 1 {
		t.Errorf("%d tries, error %v", len(f.Reads()), err)
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{
		30 * time.Second: 30 * time.Second,
		24 * time.Hour:   time.Minute, // capped
	} {
		synctest.Test(t, func(t *testing.T) {
			f := blobtest.NewFaulty(blobtest.Bytes(make([]byte, 10)), blobtest.Fault{Count: 1, Err: busy(asked)})
			start := time.Now()
			cfg := blob.RetryConfig{Base: time.Second, Max: time.Second}
			if _, err := blob.Retry(f, cfg).ReadAt(t.Context(), make([]byte, 10), 0); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took != want {
				t.Errorf("Retry-After %s: came back after %s", asked, took)
			}
		})
	}
}

func TestRetryEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := blobtest.NewFaulty(blobtest.Bytes(make([]byte, 10)), blobtest.Fault{Fail: true})
		ctx, cancel := context.WithTimeout(t.Context(), 42*time.Second)
		defer cancel()
		_, err := blob.Retry(f, blob.RetryConfig{}).ReadAt(ctx, make([]byte, 10), 0)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), blobtest.ErrInjected.Error()) {
			t.Errorf("error %v", err)
		}
	})
}

func TestIsPermanent(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{io.EOF, true},
		{context.Canceled, true},
		{io.ErrUnexpectedEOF, false},
		{errors.New("unknown"), false},
		{busy(0), false},
		{blob.Permanent(busy(0)), true},
		{errors.Join(blob.Permanent(errors.New("x"))), true},
		{refused, true}, // why errors of package net need wrapping
	} {
		if got := blob.IsPermanent(c.err); got != c.want {
			t.Errorf("IsPermanent(%v) = %v", c.err, got)
		}
	}
}

func TestRetryConfigValidate(t *testing.T) {
	for _, c := range []blob.RetryConfig{
		{Attempts: -1}, {Base: -1}, {Max: -1}, {Deadline: -1}, {Base: time.Minute, Max: time.Second},
	} {
		if c.Validate() == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
	if err := (blob.RetryConfig{}).Validate(); err != nil {
		t.Error(err)
	}
}
