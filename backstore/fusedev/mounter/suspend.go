package mounter

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// errThawed says that a file system did not stay frozen.
var errThawed = errors.New("it was thawed before that was done")

// thawTimeout bounds the wait for a child that thaws what another one left.
const thawTimeout = 30 * time.Second

// Freeze freezes the file system on target, calls during and thaws it. It is an
// error if the file system was thawed before during returned, which happens when
// ctx ends.
func (r *Runner) Freeze(ctx context.Context, target string, during func() error) error {
	frozen := &frozenLine{seen: make(chan struct{})}
	c, err := r.start(Job{Op: opFreeze, Target: target}, frozen)
	if err != nil {
		return fmt.Errorf("freezing %s: %w", target, err)
	}
	defer c.stdin.Close() // also if during panics
	select {
	case <-frozen.seen:
	case err := <-c.ended:
		return r.unfrozen(ctx, target, c, err)
	case <-ctx.Done():
		return fmt.Errorf("freezing %s: %w: %w", target, ErrUnfinished, context.Cause(ctx))
	}
	stop := context.AfterFunc(ctx, func() { c.stdin.Close() })
	derr := during()
	if !stop() {
		return errors.Join(derr, fmt.Errorf("freezing %s: %w: %w", target, errThawed, context.Cause(ctx)))
	}
	c.stdin.Close()
	select {
	case err = <-c.ended:
		return errors.Join(derr, r.unfrozen(ctx, target, c, err))
	case <-ctx.Done():
		return errors.Join(derr, fmt.Errorf("thawing %s: %w: %w", target, ErrUnfinished, context.Cause(ctx)))
	}
}

// unfrozen returns why a child that freezes target ended as it did, with err. If
// it did not get to thawing, as when it was killed, another one does that.
func (r *Runner) unfrozen(ctx context.Context, target string, c *child, err error) error {
	res, err := c.result(err)
	if err == nil && !res.Frozen {
		return nil
	}
	if err == nil {
		err = errors.New("the child process did not finish")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), thawTimeout)
	defer cancel()
	return fmt.Errorf("freezing %s: %w", target, errors.Join(err, r.Thaw(ctx, []string{target})))
}

// Thaw thaws those of targets that a child left frozen which was killed.
func (r *Runner) Thaw(ctx context.Context, targets []string) error {
	if _, err := r.run(ctx, Job{Op: opThaw, Targets: targets}); err != nil {
		return fmt.Errorf("thawing: %w", err)
	}
	return nil
}

// frozenLine is a writer that closes seen when a child's first line says that
// the file system is frozen.
type frozenLine struct {
	text []byte
	once sync.Once
	seen chan struct{}
}

func (f *frozenLine) Write(p []byte) (int, error) {
	f.text = append(f.text, p...)
	line, _, complete := bytes.Cut(f.text, []byte{'\n'})
	var res Result
	if complete && json.Unmarshal(line, &res) == nil && res.Frozen {
		f.once.Do(func() { close(f.seen) })
	}
	return len(p), nil
}
