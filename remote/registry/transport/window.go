package transport

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Window bounds the bytes that the far end of a TCP connection may have sent and
// nobody read yet.
//
// What the kernel bounds is the memory that packets take until they are read. Of
// that, their bytes are a half or nearly all, which the kernel measures: it sets
// the limit of the window (TCP_WINDOW_CLAMP) to how many bytes it takes the
// memory to be good for. Window reads it there now and then and asks for the
// memory that comes to the bytes wanted.
type Window struct {
	raw    syscall.RawConn
	want   int     // bytes
	memory int     // that the kernel allows
	clamp  int     // as Window set it
	yield  float64 // bytes of data per byte of memory
	seen   int     // bytes read since the last look
}

// NewWindow returns the window of a connection, which may be one of TLS, and
// false if it has none.
func NewWindow(conn any) (*Window, bool) {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = c.NetConn()
	}
	s, ok := conn.(syscall.Conn)
	if !ok {
		return nil, false
	}
	raw, err := s.SyscallConn()
	return &Window{raw: raw, yield: 0.5}, err == nil // as Linux begins
}

// Set sets the number of bytes. What the far end was allowed to send before is not
// taken back.
func (w *Window) Set(n int) {
	if n == w.want || n <= 0 {
		return
	}
	w.want = n
	w.look()
	w.apply(w.needed())
}

// Read notes that n bytes were read, and now and then adapts the memory to what
// packets are like. Less than wanted is let be for a while, and less memory comes
// step by step: packets on their way would be lost.
func (w *Window) Read(n int) {
	if w.seen += n; w.seen < w.want/2 {
		return
	}
	w.seen = 0
	w.look()
	memory := w.needed()
	if memory < w.memory || memory > w.memory+w.memory/8 {
		w.apply(max(memory, w.memory-w.memory/8))
	}
}

// needed returns how much memory the bytes wanted take, a little less: packets are
// put together better at one time than at another.
func (w *Window) needed() int { return int(float64(w.want-w.want/8) / w.yield) }

// look finds out what memory is good for, if the kernel measured that since Window
// set the limit.
func (w *Window) look() {
	_ = w.raw.Control(func(fd uintptr) {
		clamp, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP)
		if err == nil && w.memory > 0 && clamp != w.clamp {
			w.yield = min(max(float64(clamp)/float64(w.memory), 0.25), 1)
		}
	})
}

// apply allows so much memory.
func (w *Window) apply(memory int) {
	_ = w.raw.Control(func(fd uintptr) {
		// This ends the kernel's own tuning. It allows twice what it is asked
		// for. Beyond net.core.rmem_max that takes privileges.
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, memory/2) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, memory/2)
		}
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, w.want)
		w.memory, w.clamp = memory, w.want
		if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF); err == nil {
			w.memory = n
		}
	})
}

// Unread returns how many bytes have come that nobody read.
func (w *Window) Unread() (n int) {
	_ = w.raw.Control(func(fd uintptr) {
		n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) // 0 with an error
	})
	return n
}
