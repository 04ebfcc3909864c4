package channel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// Handler answers one request, by r.Reply, r.Done or r.Fail, before it returns. It is
// called from several goroutines. ctx ends, with a cause, when the answer is
// not wanted any more; an answer given then has no effect.
type Handler func(ctx context.Context, r *Request)

// server is one call of Serve.
type server struct {
	*Channel
	handle Handler
	loops  sync.WaitGroup
}

// Serve answers requests until ctx ends, and then waits up to drain for the
// requests in progress. Those still unfinished are cancelled and, if the kernel
// can resend them, left to the successor; otherwise they fail with EIO, since
// their processes would wait for ever. It returns nil after ctx ended and
// ErrAborted when the kernel side is gone or Stop was called, in all cases
// after all handlers have returned. It can be called once.
func (c *Channel) Serve(ctx context.Context, drain time.Duration, handle Handler) error {
	// The context of requests, which outlive ctx.
	base, release := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { c.halt(nil) })
	defer stop()
	var watch sync.WaitGroup
	watch.Go(func() { c.releaseKilled(base) })
	defer watch.Wait()
	defer release()

	s := &server{Channel: c, handle: handle}
	s.loops.Go(func() { s.loop(base) })
	ended := make(chan struct{})
	watch.Go(func() {
		s.loops.Wait()
		close(ended)
	})
	select {
	case <-ended:
	case <-c.halted:
		c.drain(drain, ended)
	}
	<-ended
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

// Stop makes Serve return ErrAborted, for a connection that nobody will serve
// any more.
func (c *Channel) Stop() { c.halt(ErrAborted) }

// halt ends the receiving of requests. The first call decides on Serve's
// result.
func (c *Channel) halt(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return
	}
	c.stopping, c.failure = true, why
	close(c.halted)
	c.payloads.unlimit()
	// Cannot fail: the counter is 0 before, and Close comes after Serve.
	_, _ = c.event.Write([]byte{1, 0, 0, 0, 0, 0, 0, 1})
}

// drain waits up to limit for the end of the handlers, then gives up their
// requests.
func (c *Channel) drain(limit time.Duration, ended <-chan struct{}) {
	c.mu.Lock()
	gone := c.failure != nil
	c.mu.Unlock()
	if !gone {
		t := time.NewTimer(limit)
		defer t.Stop()
		select {
		case <-ended:
			return
		case <-t.C:
		}
	}
	c.mu.Lock()
	c.drained = true
	c.mu.Unlock()
	for _, r := range c.pending(func(*Request) bool { return true }) {
		c.giveUp(r)
	}
}

// giveUp leaves r to the successor, or fails it if that cannot have it.
func (c *Channel) giveUp(r *Request) {
	c.mu.Lock()
	gone := c.failure != nil
	c.mu.Unlock()
	if !gone && !c.resend {
		_ = r.Fail(syscall.EIO)
	}
	r.abandon()
}

// loop receives requests and handles them, until there are readers enough
// without it. A request is handled by the goroutine that received it, which is
// twice as fast as by another one; before it handles one that may take long,
// it makes sure that somebody else is receiving.
func (s *server) loop(ctx context.Context) {
	for s.enter() {
		r := <-s.idle
		m, err := s.receive(r)
		alone := s.leave()
		if m != nil {
			err = s.dispatch(ctx, m, r, alone)
		} else {
			s.idle <- r
		}
		if err != nil {
			s.halt(err)
			return
		}
	}
}

// enter reports whether another reader is wanted, and counts it.
func (c *Channel) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping || c.readers >= cap(c.idle) {
		return false
	}
	c.readers++
	return true
}

// leave undoes enter and reports whether no reader is left.
func (c *Channel) leave() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readers--
	return c.readers == 0
}

// dispatch handles the request m, which is in from's buffer, and gives that
// back.
func (s *server) dispatch(ctx context.Context, m []byte, from *reader, alone bool) error {
	h, ok := parseHeader(m)
	if ok && isData(h.opcode) {
		return s.data(ctx, h, m, from, alone)
	}
	defer func() { s.idle <- from }()
	switch {
	case !ok:
		return fmt.Errorf("reading from /dev/fuse: malformed message of %d bytes", len(m))
	case h.opcode == opInterrupt:
		if !s.interrupt(m) {
			return s.refuse(h.unique, syscall.EAGAIN)
		}
	default:
		return s.metadata(h, m)
	}
	return nil
}

// data handles the message m about the bytes of a file. from gets another buffer
// if they are in m.
func (s *server) data(ctx context.Context, h header, m []byte, from *reader, alone bool) error {
	r, errno := parseRequest(h, m)
	if r != nil && r.Op == OpWrite {
		payload := from.buf
		from.buf = s.payloads.borrow()
		defer s.payloads.giveBack(payload)
	}
	s.idle <- from
	if errno != 0 {
		return s.refuse(h.unique, errno)
	}
	s.request(ctx, r, alone)
	return nil
}

// request handles r.
func (s *server) request(ctx context.Context, r *Request, alone bool) {
	r.channel = s.Channel
	rctx, cancel := context.WithCancelCause(ctx)
	r.cancel = cancel
	defer cancel(nil)
	defer s.unregister(r)
	if late := s.register(r); late {
		s.giveUp(r)
		return
	}
	if alone {
		s.loops.Go(func() { s.loop(ctx) })
	}
	s.handle(rctx, r)
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
