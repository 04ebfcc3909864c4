package transport

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Window bounds the bytes that the far end of a TCP connection may have sent and
// nobody read yet.
//
// What the kernel bounds is the memory that packets take until they are read. It
// allows twice the buffer it is asked for, and packets that are put together well
// fill nearly all of that with their bytes; those that are not, about half. So
// the bound is what it is said to be at best, and two thirds of that at worst.
type Window struct {
	raw  syscall.RawConn
	want int // bytes
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
	return &Window{raw: raw}, err == nil
}

// Set sets the number of bytes. What the far end was allowed to send before is not
// taken back.
func (w *Window) Set(n int) {
	if n == w.want || n <= 0 {
		return
	}
	w.want = n
	_ = w.raw.Control(func(fd uintptr) {
		// This ends the kernel's own tuning. Beyond net.core.rmem_max it takes
		// privileges.
		buffer := n/2 + n/32
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
		}
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, n)
	})
}

// Unread returns how many bytes have come that nobody read.
func (w *Window) Unread() (n int) {
	_ = w.raw.Control(func(fd uintptr) {
		n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) // 0 with an error
	})
	return n
}
