package channel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
)

// Handler answers one read, by r.Reply or r.Fail, before it returns. It is
// called in a goroutine of its own. ctx ends, with a cause, when the answer is
// not wanted any more; an answer given then has no effect.
type Handler func(ctx context.Context, r *Read)

// Serve answers requests until ctx ends, and then waits up to drain for the
// reads in progress. Those still unfinished are cancelled and, if the kernel
// can resend them, left to the successor; otherwise they fail with EIO, since
// their processes would wait for ever. It returns nil after ctx ended and
// ErrAborted when the kernel side is gone, in both cases after all handlers
// have returned. It can be called once.
func (c *Channel) Serve(ctx context.Context, drain time.Duration, handle Handler) error {
	stop := context.AfterFunc(ctx, c.wake)
	defer stop()

	var handlers, watch sync.WaitGroup
	base, release := context.WithCancel(context.WithoutCancel(ctx))
	watch.Go(func() { c.releaseKilled(base) })
	defer watch.Wait()
	defer release()

	err := c.dispatch(base, handle, &handlers)
	if errors.Is(err, os.ErrDeadlineExceeded) && c.stopped() {
		err = ErrAborted
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
		c.drain(drain, &handlers)
	} else {
		for _, r := range c.pending(func(*Read) bool { return true }) {
			r.abandon()
		}
	}
	handlers.Wait()
	return err
}

// stopped reports whether Stop was called.
func (c *Channel) stopped() bool {
	select {
	case <-c.quit:
		return true
	default:
		return false
	}
}

// dispatch reads requests until there is an error.
func (c *Channel) dispatch(ctx context.Context, handle Handler, handlers *sync.WaitGroup) error {
	for {
		m, err := c.receive()
		if err != nil {
			return err
		}
		h, ok := parseHeader(m)
		if !ok {
			return fmt.Errorf("reading from /dev/fuse: malformed message of %d bytes", len(m))
		}
		switch h.opcode {
		case opRead:
			err = c.start(ctx, h, m, handle, handlers)
		case opInterrupt:
			c.interrupt(m)
		default:
			err = c.metadata(h, m)
		}
		if err != nil {
			return err
		}
	}
}

// start runs handle for the READ in message m. The read is registered before
// the next message is received, so that its INTERRUPT finds it.
func (c *Channel) start(ctx context.Context, h header, m []byte, handle Handler, handlers *sync.WaitGroup) error {
	r, ok := parseRead(h, m)
	if !ok {
		return c.refuse(h.unique, syscall.EINVAL)
	}
	r.channel = c
	ctx, r.cancel = context.WithCancelCause(ctx)
	c.register(r)
	handlers.Go(func() {
		defer r.cancel(nil)
		defer c.unregister(r)
		handle(ctx, r)
	})
	return nil
}

// metadata answers everything that go-fuse handles. It is quick: the file
// system is a table in memory.
func (c *Channel) metadata(h header, m []byte) error {
	payload := 0
	switch h.opcode {
	case opReadDir:
		if len(m) < readInSize {
			return c.refuse(h.unique, syscall.EINVAL)
		}
		payload = int(min(binary.NativeEndian.Uint32(m[headerInSize+16:]), MaxRead))
	case opGetXAttr, opListXAttr, opIoctl:
		return c.refuse(h.unique, syscall.ENOSYS)
	}
	out := make([]byte, headerOutSize+maxFixedReply+payload)
	n, status := c.ps.HandleRequest([][]byte{m}, [][]byte{out})
	if !status.Ok() {
		return c.refuse(h.unique, syscall.EIO)
	}
	if n == 0 {
		return nil // FORGET and its like have no reply
	}
	return c.reply(out[:n])
}

func (c *Channel) refuse(unique uint64, errno syscall.Errno) error {
	var head [headerOutSize]byte
	putReplyHeader(head[:], unique, errno, 0)
	return c.reply(head[:])
}

// reply writes a reply whose request may be gone.
func (c *Channel) reply(p []byte) error {
	err := c.write(p, nil)
	switch {
	case err == nil, errors.Is(err, syscall.ENOENT):
		return nil
	case errors.Is(err, syscall.ENODEV):
		return ErrAborted
	}
	return fmt.Errorf("answering the kernel: %w", err)
}

// drain waits up to limit for handlers and then gives up their reads.
func (c *Channel) drain(limit time.Duration, handlers *sync.WaitGroup) {
	done := make(chan struct{})
	var waiter sync.WaitGroup
	waiter.Go(func() {
		handlers.Wait()
		close(done)
	})
	defer waiter.Wait()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-done:
		return
	case <-t.C:
	}
	for _, r := range c.pending(func(*Read) bool { return true }) {
		if !c.resend {
			_ = r.Fail(syscall.EIO)
		}
		r.abandon()
	}
}
