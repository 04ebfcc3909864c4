package channel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

var (
	// ErrAborted is returned by Serve when the kernel side is gone: the
	// file system was unmounted or its connection aborted.
	ErrAborted = errors.New("the FUSE connection is gone")
	// ErrKilled cancels a read whose process got SIGKILL.
	ErrKilled = errors.New("the reading process was killed")
	// ErrStopped cancels a read that Serve left to a successor.
	ErrStopped = errors.New("the server is stopping")
)

// Channel is the server's end of one FUSE connection.
type Channel struct {
	file   *os.File
	conn   syscall.RawConn
	ps     *fuse.ProtocolServer
	resend bool
	init   []byte
	stop   sync.Once
	quit   chan struct{}

	buf []byte // of the one reading goroutine

	mu    sync.Mutex // protects what follows
	reads map[uint64]*Read
}

// Open returns a channel on f, the descriptor of a connection whose INIT
// message was initMessage and has been answered already, by this process or
// by one that is gone. fs answers everything but READ, from several
// goroutines and without blocking. The channel owns f from here on.
func Open(f *os.File, initMessage []byte, fs fuse.RawFileSystem) (*Channel, error) {
	ps := fuse.NewProtocolServer(fs, protocolOptions())
	if _, err := answerInit(ps, initMessage); err != nil {
		return nil, fmt.Errorf("restoring the FUSE session: %w", err)
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Channel{
		file:   f,
		conn:   conn,
		ps:     ps,
		resend: offersResend(initMessage),
		init:   initMessage,
		quit:   make(chan struct{}),
		buf:    make([]byte, requestBufferSize),
		reads:  make(map[uint64]*Read),
	}, nil
}

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

// CanResend reports whether reads that a predecessor took and did not answer
// can be had again (kernel 6.9 and later). Without it they are lost, and the
// processes that wait for them with them.
func (c *Channel) CanResend() bool { return c.resend }

// Resend asks the kernel for all requests that were taken and not answered.
// No other process may be serving the connection.
func (c *Channel) Resend() error {
	var p [headerOutSize]byte
	putReplyHeader(p[:], 0, 0, 0)
	// Unique 0 makes the status a notification code.
	binary.NativeEndian.PutUint32(p[4:], notifyResend)
	if err := c.write(p[:], nil); err != nil {
		return fmt.Errorf("asking the kernel to resend requests: %w", err)
	}
	return nil
}

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

// Alive reports whether the kernel side of the connection still exists.
func (c *Channel) Alive() bool { return Alive(c.file) }

// File returns the descriptor, for handing it to another process.
func (c *Channel) File() *os.File { return c.file }

// InitMessage returns the INIT message that the connection began with.
func (c *Channel) InitMessage() []byte { return c.init }

// Stop makes Serve return ErrAborted, for a connection that nobody will serve
// any more.
func (c *Channel) Stop() {
	c.stop.Do(func() { close(c.quit) })
	c.wake()
}

// Close closes this process's descriptor. Unless another process holds one,
// that aborts the connection. Serve must have returned.
func (c *Channel) Close() error { return c.file.Close() }

// write sends one message to the kernel.
func (c *Channel) write(head, body []byte) error {
	var err error
	iov := [][]byte{head, body}
	if len(body) == 0 {
		iov = iov[:1]
	}
	cerr := c.conn.Control(func(fd uintptr) {
		for {
			_, err = unix.Writev(int(fd), iov)
			if err != unix.EINTR {
				return
			}
		}
	})
	if cerr != nil {
		return cerr
	}
	return err
}

// receive reads the next request into c.buf. It returns os.ErrDeadlineExceeded
// after Serve's context ended.
func (c *Channel) receive() ([]byte, error) {
	for {
		n, err := c.file.Read(c.buf)
		switch {
		case err == nil:
			return c.buf[:n], nil
		case errors.Is(err, unix.ENOENT):
			// The request was withdrawn while it was being copied.
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, err
		case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ECONNABORTED), !c.Alive():
			// Go's poller may report the end before read(2) does,
			// with an error of its own.
			return nil, ErrAborted
		default:
			return nil, fmt.Errorf("reading from /dev/fuse: %w", err)
		}
	}
}

// wake makes receive return, now and for ever.
func (c *Channel) wake() { _ = c.file.SetReadDeadline(time.Unix(1, 0)) }
