package channel

import (
	"context"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Read is one READ request. Exactly one of Reply and Fail has an effect, the
// first that is called; both may be called from any goroutine.
type Read struct {
	Node uint64 // inode number of the file
	Off  int64  // in bytes
	Size int    // in bytes, at most MaxRead

	channel     *Channel
	unique      uint64
	pid         uint32
	answered    atomic.Bool
	interrupted atomic.Bool
	cancel      context.CancelCauseFunc
}

// Reply answers with p, which may be shorter than Size at the end of the
// file. p may be used again when it returned.
func (r *Read) Reply(p []byte) error { return r.answer(0, p) }

// Fail answers with an error.
func (r *Read) Fail(errno syscall.Errno) error { return r.answer(errno, nil) }

func (r *Read) answer(errno syscall.Errno, p []byte) error {
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

// abandon leaves the read unanswered, for a successor.
func (r *Read) abandon() {
	r.answered.Store(true)
	r.cancel(ErrStopped)
}

// parseRead returns the Read in message m.
func parseRead(h header, m []byte) (*Read, bool) {
	if len(m) < readInSize {
		return nil, false
	}
	off := binary.NativeEndian.Uint64(m[headerInSize+8:])
	size := binary.NativeEndian.Uint32(m[headerInSize+16:])
	if off > 1<<62 || size > MaxRead {
		return nil, false
	}
	return &Read{Node: h.node, Off: int64(off), Size: int(size), unique: h.unique, pid: h.pid}, true
}

// FailNode answers all reads of an inode with errno and cancels their
// contexts with cause.
func (c *Channel) FailNode(node uint64, errno syscall.Errno, cause error) {
	for _, r := range c.pending(func(r *Read) bool { return r.Node == node }) {
		// A write error means that the connection is gone, which Serve
		// finds out by itself.
		_ = r.Fail(errno)
		r.cancel(cause)
	}
}

// pending returns the reads in progress for which keep returns true.
func (c *Channel) pending(keep func(*Read) bool) []*Read {
	c.mu.Lock()
	defer c.mu.Unlock()
	var reads []*Read
	for _, r := range c.reads {
		if keep(r) {
			reads = append(reads, r)
		}
	}
	return reads
}

func (c *Channel) register(r *Read) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads[r.unique] = r
}

func (c *Channel) unregister(r *Read) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.reads, r.unique)
}
