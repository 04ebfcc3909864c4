package channel_test

import (
	"bytes"
	"encoding/binary"
	"syscall"
	"testing"

	"github.com/reprise-containers/reprise/backstore/fusedev/channel"
)

// message returns a message of the kernel about inode 7, with its length.
func message(opcode uint32, body ...any) []byte {
	var b bytes.Buffer
	for _, field := range body {
		if err := binary.Write(&b, binary.NativeEndian, field); err != nil {
			panic(err)
		}
	}
	head := make([]byte, 40)
	binary.NativeEndian.PutUint32(head, uint32(len(head)+b.Len()))
	binary.NativeEndian.PutUint32(head[4:], opcode)
	binary.NativeEndian.PutUint64(head[8:], 2)
	binary.NativeEndian.PutUint64(head[16:], 7)
	return append(head, b.Bytes()...)
}

// The bodies of messages, from include/uapi/linux/fuse.h.
type (
	readIn struct { // struct fuse_read_in and fuse_write_in
		Handle, Off  uint64
		Size, Flags  uint32
		Owner        uint64
		OpenFlags, _ uint32
	}
	fsyncIn struct {
		Handle   uint64
		Flags, _ uint32
	}
	fallocateIn struct {
		Handle, Off, Length uint64
		Mode, _             uint32
	}
)

const (
	opRead, opWrite, opFsync, opFallocate = 15, 16, 20, 43

	opLookup = 1
)

// messages are the test's cases and the fuzzer's seeds.
var messages = []struct {
	name  string
	m     []byte
	want  *channel.Request // Op, Off, Size and Data
	errno syscall.Errno
}{
	{"read", message(opRead, readIn{Off: 512, Size: 4096}), &channel.Request{Op: channel.OpRead, Off: 512, Size: 4096}, 0},
	{"longest read", message(opRead, readIn{Size: channel.MaxRead}), &channel.Request{Op: channel.OpRead, Size: channel.MaxRead}, 0},
	{"longer read", message(opRead, readIn{Size: channel.MaxRead + 1}), nil, syscall.EINVAL},
	{"short read", message(opRead, uint64(1)), nil, syscall.EINVAL},
	{"far read", message(opRead, readIn{Off: 1 << 63, Size: 512}), nil, syscall.EINVAL},
	{"write", message(opWrite, readIn{Off: 1024, Size: 3}, []byte("abc")), &channel.Request{Op: channel.OpWrite, Off: 1024, Size: 3, Data: []byte("abc")}, 0},
	{"write of nothing", message(opWrite, readIn{}), &channel.Request{Op: channel.OpWrite, Data: []byte{}}, 0},
	{"longest write", message(opWrite, readIn{Size: channel.MaxWrite}, make([]byte, channel.MaxWrite)), &channel.Request{Op: channel.OpWrite, Size: channel.MaxWrite, Data: make([]byte, channel.MaxWrite)}, 0},
	{"write with too little", message(opWrite, readIn{Size: 4}, []byte("abc")), nil, syscall.EINVAL},
	{"write with too much", message(opWrite, readIn{Size: 2}, []byte("abc")), nil, syscall.EINVAL},
	{"flush", message(opFsync, fsyncIn{Flags: 1}), &channel.Request{Op: channel.OpFlush}, 0},
	{"flush without anything", message(opFsync), &channel.Request{Op: channel.OpFlush}, 0},
	{"punch", message(opFallocate, fallocateIn{Off: 512, Length: 1024, Mode: 3}), &channel.Request{Op: channel.OpDiscard, Off: 512, Size: 1024}, 0},
	{"zero", message(opFallocate, fallocateIn{Off: 512, Length: 1024, Mode: 0x11}), &channel.Request{Op: channel.OpDiscard, Off: 512, Size: 1024}, 0},
	{"punch of too much", message(opFallocate, fallocateIn{Length: 1 << 63, Mode: 3}), nil, syscall.EINVAL},
	{"preallocation", message(opFallocate, fallocateIn{Length: 1024}), nil, syscall.EOPNOTSUPP},
	{"zero that grows", message(opFallocate, fallocateIn{Length: 1024, Mode: 0x10}), nil, syscall.EOPNOTSUPP},
	{"short punch", message(opFallocate, uint64(1)), nil, syscall.EINVAL},
}

func TestParse(t *testing.T) {
	for _, c := range messages {
		t.Run(c.name, func(t *testing.T) {
			r, data, errno := channel.Parse(c.m)
			if !data || errno != c.errno {
				t.Fatalf("parsed as a request %t with errno %d, want errno %d", data, errno, c.errno)
			}
			if errno != 0 {
				return
			}
			if r.Op != c.want.Op || r.Node != 7 || r.Off != c.want.Off || r.Size != c.want.Size || !bytes.Equal(r.Data, c.want.Data) {
				t.Errorf("parsed as operation %d of node %d, %d bytes at %d with %d bytes of data", r.Op, r.Node, r.Size, r.Off, len(r.Data))
			}
		})
	}
	if _, data, _ := channel.Parse(message(opLookup, []byte("name\x00"))); data {
		t.Error("a LOOKUP is taken for a request about bytes")
	}
}

// FuzzParse checks what handlers rely on, whatever a message is.
func FuzzParse(f *testing.F) {
	for _, c := range messages {
		f.Add(c.m)
	}
	f.Add(message(opLookup, []byte("name\x00")))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, m []byte) {
		r, data, errno := channel.Parse(m)
		if !data || errno != 0 {
			if r != nil {
				t.Error("a request and a reason why there is none")
			}
			return
		}
		if r.Off < 0 || r.Size < 0 || r.Off+r.Size < 0 {
			t.Errorf("%d bytes at %d", r.Size, r.Off)
		}
		switch r.Op {
		case channel.OpRead:
			if r.Size > channel.MaxRead || r.Data != nil {
				t.Errorf("a read of %d bytes with %d bytes of data", r.Size, len(r.Data))
			}
		case channel.OpWrite:
			if int64(len(r.Data)) != r.Size || len(r.Data) > len(m) {
				t.Errorf("a write of %d bytes with %d bytes of data", r.Size, len(r.Data))
			}
		case channel.OpFlush:
			if r.Off != 0 || r.Size != 0 {
				t.Errorf("a flush of %d bytes at %d", r.Size, r.Off)
			}
		}
	})
}
