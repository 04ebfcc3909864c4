package fusedev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/fusedev/channel"
)

// request answers one request of the kernel about the bytes of a device. It
// implements channel.Handler.
func (s *Server) request(ctx context.Context, r *channel.Request) {
	e := s.table.byNode(r.Node)
	if e == nil {
		_ = r.Fail(syscall.EIO)
		return
	}
	e.stats.count(r.Op)
	err := s.serve(ctx, e, r)
	if err == nil {
		return
	}
	e.stats.errors.Add(1)
	// Without effect if the request was answered already, which is what the
	// causes of a cancellation have in common.
	_ = r.Fail(errno(err))
	theirs := !errors.Is(err, errGone) && !errors.Is(err, errRemoved) && !errors.Is(err, syscall.EROFS)
	if !theirs || ctx.Err() != nil || s.cfg.Observer == nil {
		return
	}
	if r.Op == channel.OpRead {
		s.cfg.Observer.ReadFailed(e.id, r.Off, int(r.Size), err)
	} else {
		s.cfg.Observer.WriteFailed(e.id, r.Off, r.Size, err)
	}
}

// errno maps an error to what the kernel is told. That there is no space on the
// host it passes on to who writes; everything else it would not understand.
func errno(err error) syscall.Errno {
	switch {
	case errors.Is(err, errGone):
		return syscall.ENXIO
	case errors.Is(err, errEnd):
		return syscall.EFBIG
	case errors.Is(err, syscall.EROFS):
		return syscall.EROFS
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return syscall.ENOSPC
	}
	return syscall.EIO
}

// serve does what r asks for with e's device and answers, or returns an error.
func (s *Server) serve(ctx context.Context, e *entry, r *channel.Request) error {
	d, err := e.acquire(ctx)
	if err != nil {
		return err
	}
	defer e.release()
	if r.Op == channel.OpRead {
		return s.read(ctx, e, d, r)
	}
	w, ok := d.(device.Writable)
	switch {
	case !ok && r.Op == channel.OpFlush: // there is nothing to be made durable
		return r.Done()
	case !ok:
		return syscall.EROFS
	}
	// No limit here: the kernel has one for each device (package mounter), for
	// which the channel has the memory, and a flush has to overtake what waits
	// for others. Reads, which writes may need, have their slots to themselves.
	e.stats.inFlight.Add(1)
	defer e.stats.inFlight.Add(-1)
	if err := write(ctx, e, w, r); err != nil {
		return err
	}
	return r.Done()
}

// errEnd is what a write behind the end of a device fails with.
var errEnd = errors.New("behind the end of the device")

// write does what r asks for with d, e's device.
func write(ctx context.Context, e *entry, d device.Writable, r *channel.Request) error {
	if r.Op == channel.OpFlush {
		return d.Flush(ctx)
	}
	left := e.size.Load() - r.Off
	if r.Op == channel.OpDiscard {
		// A range is never larger than the device, but for who means all of it.
		if n := min(r.Size, left); n > 0 {
			return d.Discard(ctx, r.Off, n)
		}
		return nil
	}
	if r.Size > left {
		return errEnd
	}
	n, err := d.WriteAt(ctx, r.Data, r.Off)
	if err == nil && n != len(r.Data) {
		err = fmt.Errorf("device wrote %d of %d bytes at %d: %w", n, len(r.Data), r.Off, io.ErrShortWrite)
	}
	if err == nil {
		e.stats.written.Add(int64(n))
	}
	return err
}
