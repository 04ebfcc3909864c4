package erofs

import (
	"encoding/binary"
	"fmt"
)

const (
	compactSize = 32 // bytes
	inodeSize   = 64 // bytes, of the extended form

	layoutPlain  = 0
	layoutInline = 2

	noBlock = 0xffffffff
)

// Bits of Attr.Mode, those of st_mode.
const (
	TypeMask    = 0o170000
	TypeFIFO    = 0o010000
	TypeChar    = 0o020000
	TypeDir     = 0o040000
	TypeBlock   = 0o060000
	TypeRegular = 0o100000
	TypeSymlink = 0o120000
	TypeSocket  = 0o140000
)

// Attr is what is known of a file besides its content.
type Attr struct {
	// Mode has the bits of st_mode: the type, permissions, setuid and so on.
	Mode uint16
	// UID and GID own it.
	UID, GID uint32
	// MTime is the time of modification in seconds since 1970, MTimeNsec
	// the nanoseconds of it.
	MTime     int64
	MTimeNsec uint32
	// Rdev is the number of a device, in the kernel's encoding (see Rdev).
	Rdev uint32
	// Xattrs are the extended attributes by full name.
	Xattrs map[string]string
}

// Type returns the bits of the type.
func (a Attr) Type() uint16 { return a.Mode & TypeMask }

// IsDir reports whether it is a directory.
func (a Attr) IsDir() bool { return a.Type() == TypeDir }

// Rdev returns the kernel's encoding of a device number.
func Rdev(major, minor uint32) uint32 {
	return minor&0xff | major<<8 | (minor&^0xff)<<12
}

// Inode is a file as the file system has it. Xattrs are not filled in, see
// Image.Xattrs.
type Inode struct {
	Attr
	// NID is the number of the inode.
	NID uint64
	// Size is the length of the content in bytes.
	Size int64
	// Nlink is the number of names.
	Nlink uint32

	start  uint32 // first block of the content, noBlock if none has one
	layout uint16
	header int // bytes before the extended attributes
	xattrs int // bytes of extended attributes
}

// tail returns how many bytes of the content are behind the inode.
func (i *Inode) tail() int {
	if i.layout == layoutInline {
		return int(i.Size % BlockSize)
	}
	return 0
}

// slot returns the bytes that the inode and all behind it take.
func (i *Inode) slot() int { return roundUp(i.header+i.xattrs+i.tail(), slotSize) }

// encode returns the inode in its extended form.
func (i *Inode) encode() []byte {
	b := make([]byte, inodeSize)
	le := binary.LittleEndian
	le.PutUint16(b[0:], 1|i.layout<<1)
	if i.xattrs > 0 {
		le.PutUint16(b[2:], uint16((i.xattrs-xattrHeader)/4+1))
	}
	le.PutUint16(b[4:], i.Mode)
	le.PutUint64(b[8:], uint64(i.Size))
	switch i.Type() {
	case TypeChar, TypeBlock:
		le.PutUint32(b[16:], i.Rdev)
	case TypeFIFO, TypeSocket:
	default:
		le.PutUint32(b[16:], i.start)
	}
	le.PutUint32(b[20:], uint32(i.NID)) // for stat(2) with 32 bits
	le.PutUint32(b[24:], i.UID)
	le.PutUint32(b[28:], i.GID)
	le.PutUint64(b[32:], uint64(i.MTime))
	le.PutUint32(b[40:], i.MTimeNsec)
	le.PutUint32(b[44:], i.Nlink)
	return b
}

// decodeInode decodes the inode at the start of b, which has at least
// compactSize bytes, and inodeSize if it is of the extended form.
func decodeInode(b []byte, nid uint64) (*Inode, error) {
	le := binary.LittleEndian
	format := le.Uint16(b)
	i := &Inode{NID: nid, layout: format >> 1 & 7, header: compactSize}
	i.Mode = le.Uint16(b[4:])
	if n := int(le.Uint16(b[2:])); n > 0 {
		i.xattrs = xattrHeader + 4*(n-1)
	}
	value := le.Uint32(b[16:])
	if format&1 == 0 {
		i.Nlink = uint32(le.Uint16(b[6:]))
		i.Size = int64(le.Uint32(b[8:]))
		i.UID, i.GID = uint32(le.Uint16(b[24:])), uint32(le.Uint16(b[26:]))
	} else {
		if len(b) < inodeSize {
			return nil, fmt.Errorf("%w: inode %d is cut off", ErrFormat, nid)
		}
		i.header = inodeSize
		i.Size = int64(le.Uint64(b[8:]))
		i.UID, i.GID = le.Uint32(b[24:]), le.Uint32(b[28:])
		i.MTime, i.MTimeNsec = int64(le.Uint64(b[32:])), le.Uint32(b[40:])
		i.Nlink = le.Uint32(b[44:])
	}
	switch i.Type() {
	case TypeChar, TypeBlock:
		i.Rdev, i.start = value, noBlock
	case TypeFIFO, TypeSocket:
		i.start = noBlock
	case TypeRegular, TypeDir, TypeSymlink:
		i.start = value
	default:
		return nil, fmt.Errorf("%w: inode %d has mode %#o", ErrFormat, nid, i.Mode)
	}
	switch {
	case i.layout != layoutPlain && i.layout != layoutInline:
		return nil, fmt.Errorf("%w: inode %d has data layout %d", ErrFormat, nid, i.layout)
	case i.Size < 0:
		return nil, fmt.Errorf("%w: inode %d has %d bytes", ErrFormat, nid, uint64(i.Size))
	}
	return i, nil
}

func roundUp(n, unit int) int { return (n + unit - 1) / unit * unit }
