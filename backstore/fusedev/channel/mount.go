package channel

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// FSType is the file system type that mountinfo shows for our FUSE mounts.
const FSType = "fuse.reprise"

// MaxRead is the largest READ in bytes the kernel is told to send. 1 MiB is
// what its default max_pages_limit (256 pages) allows.
const MaxRead = 1 << 20

// maxWrite is the largest WRITE in bytes the kernel is told to send. Each takes a
// buffer that is resident before it comes, so it decides what writes in flight
// cost. Larger ones would not be faster: nothing far away answers them.
const maxWrite = 256 << 10

// initTimeout bounds the wait for the kernel's first message, which is queued
// before mount(2) returns.
const initTimeout = 10 * time.Second

// Mount mounts a new FUSE file system on the directory target, answers the
// kernel's INIT, and returns the descriptor with the INIT message, which
// together are all that a process needs to serve it (see Open).
func Mount(target string) (f *os.File, initMessage []byte, err error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("opening /dev/fuse: %w (is the fuse module loaded?)", err)
	}
	// allow_other, because a container's process may be the one whose read
	// of an erofs mount asks for the file's attributes; the files' mode
	// keeps everybody but root from opening them.
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other,max_read=%d", fd, MaxRead)
	if err := unix.Mount("reprise", target, FSType, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		unix.Close(fd)
		return nil, nil, fmt.Errorf("mounting FUSE on %s: %w", target, err)
	}
	f = os.NewFile(uintptr(fd), "/dev/fuse")
	initMessage, err = handshake(f)
	if err != nil {
		f.Close()
		// The descriptor is closed, so this cannot wait for anybody.
		_ = unix.Unmount(target, unix.MNT_DETACH)
		return nil, nil, fmt.Errorf("negotiating with the kernel on %s: %w", target, err)
	}
	return f, initMessage, nil
}

// handshake reads the INIT message from f and answers it.
func handshake(f *os.File) ([]byte, error) {
	p := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
	if n, err := unix.Poll(p, int(initTimeout.Milliseconds())); err != nil || n != 1 {
		return nil, fmt.Errorf("waiting for INIT: %d messages, %w", n, err)
	}
	buf := make([]byte, MaxRead+4096)
	n, err := f.Read(buf)
	if err != nil {
		return nil, fmt.Errorf("reading INIT: %w", err)
	}
	reply, err := answerInit(fuse.NewProtocolServer(fuse.NewDefaultRawFileSystem(), protocolOptions()), buf[:n])
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(reply); err != nil {
		return nil, fmt.Errorf("answering INIT: %w", err)
	}
	return append([]byte(nil), buf[:n]...), nil
}

// protocolOptions returns the settings of the connection. They must not
// depend on the process, because a successor negotiates nothing.
func protocolOptions() *fuse.MountOptions {
	return &fuse.MountOptions{
		Name:     "reprise",
		MaxWrite: MaxRead, // also sets max_pages, which limits reads
		// The limit belongs to the whole connection. One stuck image
		// must not use it up for the others, so it is the highest
		// there is, and each device has a limit of its own.
		MaxBackground: 65535,
		// Without ASYNC_DIO a loop device over FUSE keeps one request
		// in flight, whatever else is set.
		ExtraCapabilities: fuse.CAP_ASYNC_DIO,
		// Passthrough gives the superblock a stacking depth, and then
		// erofs refuses to mount a file on it.
		DisabledCapabilities:     fuse.CAP_PASSTHROUGH | fuse.CAP_READDIRPLUS,
		ExplicitDataCacheControl: true, // devices never change: no attribute checks
		DisableSplice:            true,
	}
}

// answerInit lets ps handle the INIT message and returns the reply.
func answerInit(ps *fuse.ProtocolServer, message []byte) ([]byte, error) {
	if h, ok := parseHeader(message); !ok || h.opcode != opInit {
		return nil, fmt.Errorf("message of %d bytes is not an INIT", len(message))
	}
	out := make([]byte, headerOutSize+maxFixedReply)
	n, status := ps.HandleRequest([][]byte{message}, [][]byte{out})
	if !status.Ok() || n < headerOutSize {
		return nil, fmt.Errorf("handling INIT: %s", status)
	}
	if code := replyStatus(out); code != 0 {
		return nil, fmt.Errorf("handling INIT: %w", code)
	}
	// Kernel readahead of the FUSE files stays off: it cannot be told
	// apart from need (see package fusedev). MaxReadAhead is the third
	// field of InitOut; go-fuse takes 0 for "whatever the kernel offers".
	clear(out[headerOutSize+8 : headerOutSize+12])
	// max_write; go-fuse takes the one number for the limit on reads, too.
	binary.NativeEndian.PutUint32(out[headerOutSize+20:], maxWrite)
	return out[:n], nil
}
