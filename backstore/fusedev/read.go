package fusedev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"

	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/fusedev/channel"
)

// read reads from e's device and replies, or returns an error.
func (s *Server) read(ctx context.Context, e *entry, d device.Device, r *channel.Request) error {
	n := int(min(r.Size, max(0, e.size.Load()-r.Off)))
	if n == 0 {
		return r.Reply(nil)
	}
	w := s.weight(n)
	e.stats.waiting.Add(1)
	err := e.slots.Acquire(ctx, w)
	e.stats.waiting.Add(-1)
	if err != nil {
		return context.Cause(ctx)
	}
	defer e.slots.Release(w)
	e.stats.inFlight.Add(1)
	defer e.stats.inFlight.Add(-1)

	buf := s.buffers.get(n)
	defer s.buffers.put(buf)
	p := (*buf)[:n]
	if err := fill(ctx, d, p, r.Off); err != nil {
		return err
	}
	if err := r.Reply(p); err != nil {
		return err
	}
	e.stats.bytes.Add(int64(n))
	return nil
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
