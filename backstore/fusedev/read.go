package fusedev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"
	"syscall"

	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/fusedev/channel"
)

// read answers one READ of the kernel. It implements channel.Handler.
func (s *Server) read(ctx context.Context, r *channel.Read) {
	e := s.table.byNode(r.Node)
	if e == nil {
		_ = r.Fail(syscall.EIO)
		return
	}
	e.stats.requests.Add(1)
	n, err := s.serve(ctx, e, r)
	if err == nil {
		e.stats.bytes.Add(int64(n))
		return
	}
	e.stats.errors.Add(1)
	// Without effect if the read was answered already, which is what the
	// causes of a cancellation have in common.
	_ = r.Fail(errno(err))
	theirs := !errors.Is(err, errGone) && !errors.Is(err, errRemoved)
	if theirs && ctx.Err() == nil && s.cfg.Observer != nil {
		s.cfg.Observer.ReadFailed(e.id, r.Off, r.Size, err)
	}
}

// errno maps an error to what the kernel is told.
func errno(err error) syscall.Errno {
	if errors.Is(err, errGone) {
		return syscall.ENXIO
	}
	return syscall.EIO
}

// serve reads from e's device and replies, or returns an error.
func (s *Server) serve(ctx context.Context, e *entry, r *channel.Read) (int, error) {
	n := int(min(int64(r.Size), max(0, e.size-r.Off)))
	if n == 0 {
		return 0, r.Reply(nil)
	}
	d, err := e.acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer e.release()

	w := s.weight(n)
	e.stats.waiting.Add(1)
	err = e.slots.Acquire(ctx, w)
	e.stats.waiting.Add(-1)
	if err != nil {
		return 0, context.Cause(ctx)
	}
	defer e.slots.Release(w)
	e.stats.inFlight.Add(1)
	defer e.stats.inFlight.Add(-1)

	buf := s.buffers.get(n)
	defer s.buffers.put(buf)
	p := (*buf)[:n]
	if err := fill(ctx, d, p, r.Off); err != nil {
		return 0, err
	}
	return n, r.Reply(p)
}

// fill reads len(p) bytes from d, which has them.
func fill(ctx context.Context, d device.Device, p []byte, off int64) error {
	n, err := d.ReadAt(ctx, p, off)
	if n == len(p) && (err == nil || errors.Is(err, io.EOF)) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("device returned %d of %d bytes at %d: %w", n, len(p), off, io.ErrUnexpectedEOF)
	}
	return err
}

// slotBytes is the capacity of an entry's slots. It fits at least one read.
func (s *Server) slotBytes() int64 { return max(s.cfg.MaxInFlightBytes, channel.MaxRead) }

// weight returns what a read of n bytes takes of its entry's slots, so that
// neither the number of reads nor their bytes exceed the limits.
func (s *Server) weight(n int) int64 {
	return max(int64(n), s.slotBytes()/int64(s.cfg.MaxInFlight))
}

// buffers is a pool of buffers in sizes of powers of two from 4 KiB to 1 MiB.
type buffers struct {
	pools [9]sync.Pool
}

const minBuffer = 4 << 10

// get returns a buffer of at least n bytes.
func (b *buffers) get(n int) *[]byte {
	class := bits.Len(uint((n - 1) / minBuffer))
	if p, ok := b.pools[class].Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, minBuffer<<class)
	return &p
}

// put takes back a buffer from get.
func (b *buffers) put(p *[]byte) {
	b.pools[bits.Len(uint((len(*p)-1)/minBuffer))].Put(p)
}
