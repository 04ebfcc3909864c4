package channel

import (
	"encoding/binary"
	"syscall"
)

// Operation codes, from enum fuse_opcode.
const (
	opRead      = 15
	opWrite     = 16
	opFsync     = 20
	opInit      = 26
	opReadDir   = 28
	opGetXAttr  = 22
	opListXAttr = 23
	opInterrupt = 36
	opIoctl     = 39
	opFallocate = 43
)

// Modes of FALLOCATE that are answered, from linux/falloc.h: what a loop device
// makes of a discard and of a write of zeros. Both keep the size of the file.
const (
	punchHole = 0x02 | 0x01
	zeroRange = 0x10 | 0x01
)

// maxOffset bounds offsets and lengths in bytes, so that their sum cannot
// overflow.
const maxOffset = 1 << 62

// Notifications, from enum fuse_notify_code.
const (
	notifyInvalidate = 2 // FUSE_NOTIFY_INVAL_INODE
	notifyResend     = 7 // FUSE_NOTIFY_RESEND (kernel 6.9 and later)
)

// Sizes in bytes.
const (
	headerInSize  = 40 // struct fuse_in_header
	headerOutSize = 16 // struct fuse_out_header
	readInSize    = 80 // with its header
	writeInSize   = 80 // with its header, and before its data
	writeOutSize  = 8
	interruptSize = 48 // with its header

	fallocateInSize = 72 // with its header

	invalidateSize = 24 // struct fuse_notify_inval_inode_out

	// maxFixedReply is more than any reply without a payload takes.
	maxFixedReply = 512

	// bufferSize holds every request.
	bufferSize = maxWrite + 4096

	// tailSize is what the kernel wants to see behind a buffer, or it refuses
	// to hand out requests at all. Connections of earlier versions, whose
	// files were all read-only, have MaxRead for max_write and not maxWrite.
	tailSize = MaxRead - maxWrite
)

// header is what is needed of struct fuse_in_header.
type header struct {
	length uint32
	opcode uint32
	unique uint64
	node   uint64
	pid    uint32
}

// parseHeader reads the header of message m. It reports false if m is too
// short or its length field disagrees with its size.
func parseHeader(m []byte) (header, bool) {
	if len(m) < headerInSize {
		return header{}, false
	}
	h := header{
		length: binary.NativeEndian.Uint32(m),
		opcode: binary.NativeEndian.Uint32(m[4:]),
		unique: uniqueOf(m),
		node:   binary.NativeEndian.Uint64(m[16:]),
		pid:    binary.NativeEndian.Uint32(m[32:]),
	}
	return h, int(h.length) == len(m)
}

// uniqueOf returns what the kernel tells the request in m by. m has a header.
func uniqueOf(m []byte) uint64 { return binary.NativeEndian.Uint64(m[8:]) }

// putReplyHeader writes struct fuse_out_header for n payload bytes.
func putReplyHeader(p []byte, unique uint64, errno syscall.Errno, n int) {
	binary.NativeEndian.PutUint32(p, uint32(headerOutSize+n))
	binary.NativeEndian.PutUint32(p[4:], uint32(-int32(errno)))
	binary.NativeEndian.PutUint64(p[8:], unique)
}

// putNotifyHeader writes struct fuse_out_header for a notification with n payload
// bytes.
func putNotifyHeader(p []byte, code uint32, n int) {
	binary.NativeEndian.PutUint32(p, uint32(headerOutSize+n))
	binary.NativeEndian.PutUint32(p[4:], code)
	clear(p[8:headerOutSize]) // unique 0 is what tells it from a reply
}

// replyStatus returns the error number in the reply p, 0 for success.
func replyStatus(p []byte) syscall.Errno {
	return syscall.Errno(-int32(binary.NativeEndian.Uint32(p[4:])))
}

func nativeUint32(p []byte) uint32 { return binary.NativeEndian.Uint32(p) }
