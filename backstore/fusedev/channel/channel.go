package channel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

var (
	// ErrAborted is returned by Serve when the kernel side is gone: the
	// file system was unmounted or its connection aborted.
	ErrAborted = errors.New("the FUSE connection is gone")
	// ErrKilled cancels a request whose process got SIGKILL.
	ErrKilled = errors.New("the process that waits for it was killed")
	// ErrStopped cancels a request that Serve left to a successor.
	ErrStopped = errors.New("the server is stopping")
)

// Channel is the server's end of one FUSE connection.
type Channel struct {
	ps       *fuse.ProtocolServer
	resend   bool
	init     []byte
	idle     chan *reader
	payloads *payloads
	tail     []byte
	event    *os.File      // eventfd that is readable when stopping is set
	halted   chan struct{} // closed when stopping is set

	// fd is the descriptor, -1 after Close. It is no os.File: that would
	// put a nonblocking descriptor into Go's poller, which is then woken
	// for each request in addition to a reader.
	fdMu sync.RWMutex
	fd   int

	mu       sync.Mutex // protects what follows
	requests map[uint64]*Request
	readers  int   // goroutines in receive
	stopping bool  // no more requests are to be received
	drained  bool  // those in progress have been given up
	failure  error // why, unless Serve's context ended
}

// Open returns a channel on f, the descriptor of a connection whose INIT
// message was initMessage and has been answered already, by this process or
// by one that is gone. fs answers everything but requests about the bytes of
// files, from several goroutines and without blocking. The caller may close f afterwards.
func Open(f *os.File, initMessage []byte, fs fuse.RawFileSystem) (*Channel, error) {
	ps := fuse.NewProtocolServer(fs, protocolOptions())
	if _, err := answerInit(ps, initMessage); err != nil {
		return nil, fmt.Errorf("restoring the FUSE session: %w", err)
	}
	fd, err := duplicate(f)
	if err != nil {
		return nil, fmt.Errorf("duplicating the FUSE descriptor: %w", err)
	}
	c := &Channel{
		fd:       fd,
		ps:       ps,
		resend:   offersResend(initMessage),
		init:     initMessage,
		idle:     make(chan *reader, maxReaders()),
		payloads: newPayloads(),
		halted:   make(chan struct{}),
		requests: make(map[uint64]*Request),
	}
	if err := c.makeReaders(); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// duplicate returns a new descriptor for f.
func duplicate(f *os.File) (fd int, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := conn.Control(func(from uintptr) {
		fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0)
	})
	return fd, errors.Join(cerr, err)
}

// makeReaders prepares the descriptor and the readers for it.
func (c *Channel) makeReaders() error {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("creating an eventfd: %w", err)
	}
	c.event = os.NewFile(uintptr(event), "eventfd")
	if err := unix.SetNonblock(c.fd, true); err != nil {
		return fmt.Errorf("making /dev/fuse nonblocking: %w", err)
	}
	c.tail, err = newTail()
	if err != nil {
		return err
	}
	for len(c.idle) < cap(c.idle) {
		r, err := newReader(c.fd, event, c.tail)
		if err != nil {
			return err
		}
		c.idle <- r
	}
	return nil
}

func (c *Channel) closeReaders() {
	for len(c.idle) > 0 {
		(<-c.idle).close()
	}
	if c.event != nil {
		c.event.Close()
	}
	if c.tail != nil {
		_ = unix.Munmap(c.tail)
		c.tail = nil
	}
}

// maxReaders returns how many goroutines may wait for requests.
func maxReaders() int { return min(max(2, runtime.GOMAXPROCS(0)), 16) }

// offersResend reports whether the kernel that sent the INIT message knows
// FUSE_NOTIFY_RESEND.
func offersResend(initMessage []byte) bool {
	const flagsOff, flags2Off, initExt = headerInSize + 12, headerInSize + 16, 1 << 30
	if len(initMessage) < flags2Off+4 {
		return false
	}
	flags := uint64(nativeUint32(initMessage[flagsOff:]))
	if flags&initExt == 0 {
		return false
	}
	flags |= uint64(nativeUint32(initMessage[flags2Off:])) << 32
	return flags&fuse.CAP_HAS_RESEND != 0
}

// CanResend reports whether requests that a predecessor took and did not answer
// can be had again (kernel 6.9 and later). Without it they are lost, and the
// processes that wait for them with them.
func (c *Channel) CanResend() bool { return c.resend }

// Resend asks the kernel for all requests that were taken and not answered.
// No other process may be serving the connection.
func (c *Channel) Resend() error {
	var p [headerOutSize]byte
	putNotifyHeader(p[:], notifyResend, 0)
	if err := c.write(p[:], nil); err != nil {
		return fmt.Errorf("asking the kernel to resend requests: %w", err)
	}
	return nil
}

// Forget makes the kernel forget the attributes of an inode, if it knows that.
func (c *Channel) Forget(node uint64) error {
	var p [headerOutSize + invalidateSize]byte
	putNotifyHeader(p[:], notifyInvalidate, invalidateSize)
	binary.NativeEndian.PutUint64(p[headerOutSize:], node)
	// A negative offset: nothing but the attributes.
	binary.NativeEndian.PutUint64(p[headerOutSize+8:], math.MaxUint64)
	if err := c.write(p[:], nil); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("making the kernel forget attributes: %w", err)
	}
	return nil
}

// Expect prepares for the writes of so many more files, or fewer if it is negative.
// A file may have 32 in flight that hold up nobody, whatever becomes of them, with
// 64 more for all files together.
func (c *Channel) Expect(files int) { c.payloads.grow(files) }

// Alive reports whether the kernel side of f, a /dev/fuse descriptor, still
// exists. It does not block.
func Alive(f *os.File) bool {
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	alive := false
	_ = conn.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(p, 0)
		alive = err == nil && p[0].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) == 0
	})
	return alive
}

// File returns a copy of the descriptor, for handing it to another process.
func (c *Channel) File() (*os.File, error) {
	c.fdMu.RLock()
	defer c.fdMu.RUnlock()
	fd, err := unix.FcntlInt(uintptr(c.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicating the FUSE descriptor: %w", err)
	}
	return os.NewFile(uintptr(fd), "/dev/fuse"), nil
}

// InitMessage returns the INIT message that the connection began with.
func (c *Channel) InitMessage() []byte { return c.init }

// Close closes this process's descriptor. Unless another process holds one,
// that aborts the connection. Serve must have returned.
func (c *Channel) Close() error {
	c.closeReaders()
	c.fdMu.Lock()
	defer c.fdMu.Unlock()
	fd := c.fd
	c.fd = -1
	return unix.Close(fd)
}

// write sends one message to the kernel.
func (c *Channel) write(head, body []byte) error {
	iov := [][]byte{head, body}
	if len(body) == 0 {
		iov = iov[:1]
	}
	c.fdMu.RLock()
	defer c.fdMu.RUnlock()
	for {
		_, err := unix.Writev(c.fd, iov)
		if err != unix.EINTR {
			return err
		}
	}
}

// receive returns the next request, in r's buffer, or nil when no more
// requests are to be received.
func (c *Channel) receive(r *reader) ([]byte, error) {
	for !c.isHalted() {
		n, err := unix.Readv(c.fd, [][]byte{r.buf, r.tail})
		switch err {
		case nil:
			if n <= len(r.buf) {
				return r.buf[:n], nil
			}
			// A connection of an earlier version, and not by way of a loop
			// device, whose writes are smaller.
			if err := c.refuse(uniqueOf(r.buf), unix.EINVAL); err != nil {
				return nil, err
			}
		case unix.EAGAIN:
			if err := r.wait(); err != nil {
				return nil, err
			}
		case unix.EINTR:
		case unix.ENOENT:
			// The request was withdrawn while it was being copied.
		case unix.ENODEV, unix.ECONNABORTED:
			return nil, ErrAborted
		default:
			return nil, fmt.Errorf("reading from /dev/fuse: %w", err)
		}
	}
	return nil, nil
}

func (c *Channel) isHalted() bool {
	select {
	case <-c.halted:
		return true
	default:
		return false
	}
}
