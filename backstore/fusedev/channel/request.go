package channel

import (
	"context"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Op is what a request asks for.
type Op int

const (
	// OpRead is READ.
	OpRead Op = iota
	// OpWrite is WRITE.
	OpWrite
	// OpDiscard is FALLOCATE, in the two modes after which the range reads as
	// zeros and the file has the size it had.
	OpDiscard
	// OpFlush is FSYNC.
	OpFlush
)

// Request is one request about the bytes of a file. Exactly one of Reply and Fail
// has an effect, the first that is called; both may be called from any goroutine.
type Request struct {
	Op   Op
	Node uint64 // inode number of the file
	Off  int64  // in bytes; 0 for OpFlush
	// Size is how many bytes it is about: at most MaxRead, but for OpDiscard; 0
	// for OpFlush.
	Size int64
	// Data are the bytes of an OpWrite, Size of them. They are gone when the
	// handler has returned.
	Data []byte

	channel     *Channel
	unique      uint64
	pid         uint32
	answered    atomic.Bool
	interrupted atomic.Bool
	cancel      context.CancelCauseFunc
}

// Reply answers an OpRead with p, which may be shorter than Size at the end of the
// file. p may be used again when it returned.
func (r *Request) Reply(p []byte) error { return r.answer(0, p) }

// Done says of every other request that it was done.
func (r *Request) Done() error {
	if r.Op != OpWrite {
		return r.answer(0, nil)
	}
	var written [writeOutSize]byte
	binary.NativeEndian.PutUint32(written[:], uint32(r.Size))
	return r.answer(0, written[:])
}

// Fail answers with an error.
func (r *Request) Fail(errno syscall.Errno) error { return r.answer(errno, nil) }

func (r *Request) answer(errno syscall.Errno, p []byte) error {
	if !r.answered.CompareAndSwap(false, true) {
		return nil
	}
	var head [headerOutSize]byte
	putReplyHeader(head[:], r.unique, errno, len(p))
	err := r.channel.write(head[:], p)
	if errors.Is(err, unix.ENOENT) {
		return nil // the kernel gave the request up meanwhile
	}
	return err
}

// abandon leaves the request unanswered, for a successor.
func (r *Request) abandon() {
	r.answered.Store(true)
	r.cancel(ErrStopped)
}

// isData reports whether opcode is that of a message that becomes a Request.
func isData(opcode uint32) bool {
	switch opcode {
	case opRead, opWrite, opFsync, opFallocate:
		return true
	}
	return false
}

// parseRequest returns the Request in message m, whose header is h, or an error
// number: m is malformed, or what it asks for is nothing that a device can do.
// Data refers to m.
func parseRequest(h header, m []byte) (*Request, syscall.Errno) {
	r := &Request{Node: h.node, unique: h.unique, pid: h.pid}
	body := m[headerInSize:]
	var off, size uint64
	switch h.opcode {
	case opRead, opWrite:
		if len(m) < readInSize {
			return nil, syscall.EINVAL
		}
		off, size = binary.NativeEndian.Uint64(body[8:]), uint64(binary.NativeEndian.Uint32(body[16:]))
		if size > MaxRead {
			return nil, syscall.EINVAL
		}
		if h.opcode == opWrite {
			r.Op, r.Data = OpWrite, m[writeInSize:]
			if uint64(len(r.Data)) != size {
				return nil, syscall.EINVAL
			}
		}
	case opFsync:
		r.Op = OpFlush
	case opFallocate:
		if len(m) < fallocateInSize {
			return nil, syscall.EINVAL
		}
		off, size = binary.NativeEndian.Uint64(body[8:]), binary.NativeEndian.Uint64(body[16:])
		if mode := binary.NativeEndian.Uint32(body[24:]); mode != punchHole && mode != zeroRange {
			return nil, syscall.EOPNOTSUPP
		}
		r.Op = OpDiscard
	}
	if off > maxOffset || size > maxOffset {
		return nil, syscall.EINVAL
	}
	r.Off, r.Size = int64(off), int64(size)
	return r, 0
}

// FailNode answers all requests about an inode with errno and cancels their
// contexts with cause.
func (c *Channel) FailNode(node uint64, errno syscall.Errno, cause error) {
	for _, r := range c.pending(func(r *Request) bool { return r.Node == node }) {
		// A write error means that the connection is gone, which Serve
		// finds out by itself.
		_ = r.Fail(errno)
		r.cancel(cause)
	}
}

// pending returns the requests in progress for which keep returns true.
func (c *Channel) pending(keep func(*Request) bool) []*Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*Request
	for _, r := range c.requests {
		if keep(r) {
			found = append(found, r)
		}
	}
	return found
}

// register makes r one of those in progress, and reports whether those have been
// given up, so that r has to be, too.
func (c *Channel) register(r *Request) (late bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests[r.unique] = r
	return c.drained
}

func (c *Channel) unregister(r *Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.requests, r.unique)
}
