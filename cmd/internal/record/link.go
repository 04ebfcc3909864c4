package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// removeLink removes a network interface, if there is one of that name
// (rtnetlink(7), RTM_DELLINK).
func removeLink(name string) error {
	found, err := net.InterfaceByName(name)
	if err != nil {
		if errors.Is(err, unix.ENODEV) || isNoSuchInterface(err) {
			return nil
		}
		return err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var b bytes.Buffer
	for _, part := range []any{
		unix.NlMsghdr{
			Len: unix.SizeofNlMsghdr + unix.SizeofIfInfomsg, Type: unix.RTM_DELLINK,
			Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK, Seq: 1,
		},
		unix.IfInfomsg{Index: int32(found.Index)},
	} {
		if err := binary.Write(&b, binary.NativeEndian, part); err != nil {
			return err
		}
	}
	if err := unix.Sendto(fd, b.Bytes(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("an answer of %d bytes that is no acknowledgement", n)
	}
	if errno := -int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}

// isNoSuchInterface recognises the error of package net, which has no type.
func isNoSuchInterface(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Err != nil && op.Err.Error() == "no such network interface"
}
