package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/reprise-containers/reprise/remote/blob/pause"
)

// longestRetryAfter bounds what a source may ask for: a read somebody waits
// for must not sleep for a day because one answer said so.
const longestRetryAfter = time.Minute

// RetryConfig says how often and for how long a failing read is repeated. The
// zero value repeats for ever, which is what "hold" means: a reader blocks
// until the source is back.
type RetryConfig struct {
	// Attempts is the number of tries without progress after which a read
	// ends with its last error; 0 is no limit.
	Attempts int
	// Base is the longest wait before the second try; each further one
	// doubles it. Default 100 ms.
	Base time.Duration
	// Max caps the wait between tries. Default 10 s.
	Max time.Duration
	// Deadline is the time after which a read ends with its last error and
	// ErrReadDeadline, including tries under way; 0 is never.
	Deadline time.Duration
	// Permanent reports errors that end a read at once. Default IsPermanent.
	Permanent func(error) bool
}

// Validate reports values that make no sense.
func (c RetryConfig) Validate() error {
	switch {
	case c.Attempts < 0:
		return fmt.Errorf("retry attempts %d are negative", c.Attempts)
	case c.Base < 0 || c.Max < 0 || c.Deadline < 0:
		return errors.New("retry times must not be negative")
	case c.Base > 0 && c.Max > 0 && c.Max < c.Base:
		return fmt.Errorf("longest retry wait %s is below the shortest %s", c.Max, c.Base)
	}
	return nil
}

func (c RetryConfig) withDefaults() RetryConfig {
	if c.Base <= 0 {
		c.Base = 100 * time.Millisecond
	}
	if c.Max <= 0 {
		c.Max = max(10*time.Second, c.Base)
	}
	if c.Permanent == nil {
		c.Permanent = IsPermanent
	}
	return c
}

// Do calls op until it succeeds, fails for good or ctx ends, under the rules of
// the configuration.
func (c RetryConfig) Do(ctx context.Context, op func(context.Context) error) error {
	return c.run(ctx, func(ctx context.Context) (bool, error) { return false, op(ctx) })
}

// run is Do for an op that may make progress although it fails: progress
// starts the count of attempts and the backoff anew, but not the deadline.
func (c RetryConfig) run(ctx context.Context, op func(context.Context) (progress bool, err error)) error {
	c = c.withDefaults()
	opctx := ctx
	if c.Deadline > 0 {
		var cancel context.CancelFunc
		opctx, cancel = context.WithTimeout(ctx, c.Deadline)
		defer cancel()
	}
	var last error
	for try := 1; ; try++ {
		progress, err := op(opctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return interrupted(ctx, err)
		case opctx.Err() != nil:
			return c.pastDeadline(last, err)
		case c.Permanent(err):
			return err
		}
		last = err
		if progress {
			try = 1
		}
		if c.Attempts > 0 && try >= c.Attempts {
			return fmt.Errorf("giving up after %d attempts: %w", try, err)
		}
		if !pause.For(opctx, c.wait(try, err)) {
			if ctx.Err() != nil {
				return interrupted(ctx, err)
			}
			return c.pastDeadline(last, err)
		}
	}
}

// interrupted returns the error of an operation whose caller gave up, with what
// it was struggling with until then.
func interrupted(ctx context.Context, err error) error {
	if errors.Is(err, ctx.Err()) {
		return err
	}
	return fmt.Errorf("%w; last error: %w", ctx.Err(), err)
}

// pastDeadline prefers the error of a try that failed by itself to that of the
// one the deadline cut off: it says what is wrong.
func (c RetryConfig) pastDeadline(last, err error) error {
	if last == nil {
		last = err
	}
	return fmt.Errorf("%w after %s: %w", ErrReadDeadline, c.Deadline, last)
}

// wait returns the pause after the given try (from 1): a random part of an
// exponentially growing span ("full jitter"), so that readers which failed
// together do not come back together, or what the source asked for.
func (c RetryConfig) wait(try int, err error) time.Duration {
	span := c.Max
	if shift := try - 1; shift < 32 && c.Base < c.Max>>shift {
		span = c.Base << shift
	}
	d := rand.N(span + 1)
	if ra, ok := errors.AsType[interface {
		error
		RetryAfter
	}](err); ok {
		d = max(d, min(ra.RetryAfter(), longestRetryAfter))
	}
	return d
}

type retried struct {
	passthrough
	cfg RetryConfig
}

// Retry returns b with failing reads repeated as cfg says. What a failing read
// delivered is kept and only the rest is asked for again, so a source that cuts
// every answer short still gets through.
func Retry(b Blob, cfg RetryConfig) Blob {
	return &retried{passthrough{b}, cfg}
}

// ReadAt implements ReaderAt.
func (r *retried) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	p, end := Clip(r.Blob, p, off)
	if len(p) == 0 {
		return 0, end
	}
	done := 0
	err := r.cfg.run(ctx, func(ctx context.Context) (bool, error) {
		n, err := r.Blob.ReadAt(ctx, p[done:], off+int64(done))
		done += n
		if done == len(p) {
			return true, nil
		}
		if err == nil || err == io.EOF { //nolint:errorlint // within the size, neither is allowed
			err = io.ErrUnexpectedEOF
		}
		return n > 0, err
	})
	if err != nil {
		return done, fmt.Errorf("reading %d bytes at %d: %w", len(p), off, err)
	}
	return done, end
}
