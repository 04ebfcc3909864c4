package transport

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// SetWindow bounds the bytes that the far end of a TCP connection may have sent
// and nobody read yet, and reports whether it could. conn may be a connection
// of TLS. The bound is the kernel's: it counts memory, so what is in flight is
// less when it comes in small packets.
//
// Both limits are needed: the buffer's ends the kernel's own tuning, which
// would raise the other, and counts what lies unread; the window's does not
// depend on how packets are put together.
func SetWindow(conn any, n int) bool {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = c.NetConn()
	}
	s, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		// The kernel doubles the buffer for its own needs. Beyond
		// net.core.rmem_max it takes privileges.
		if set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, n); set != nil {
			set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, n)
		}
		if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, n); err != nil {
			set = err
		}
	})
	return err == nil && set == nil
}
