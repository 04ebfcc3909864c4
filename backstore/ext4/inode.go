package ext4

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// Types of inodes, bits of Inode.Mode, those of st_mode.
const (
	TypeMask    = 0o170000
	TypeDir     = 0o040000
	TypeRegular = 0o100000
	TypeSymlink = 0o120000
)

// Bits of an inode's flags.
const (
	flagIndex   = 0x1000 // hashed directory
	flagExtents = 0x80000
	flagInline  = 0x10000000
	flagFold    = 0x40000000 // directory whose names have no case
)

const (
	inBlock   = 60  // bytes of block map, extents or content in an inode
	oldInode  = 128 // bytes, up to where all inodes are alike
	eaMagic   = 0xea020000
	eaEntry   = 16 // bytes before an attribute's name
	eaSystem  = 7  // prefix "system."
	maxTarget = 4096
)

// Inode is what is known of a file.
type Inode struct {
	Number uint64
	// Mode has the bits of st_mode.
	Mode uint16
	// Size is the length of the content in bytes.
	Size int64

	flags      uint32
	block      [inBlock]byte
	more       []byte // content behind that in block, of inline files
	at, length int64  // bytes on the device
}

// Type returns the bits of the type.
func (i *Inode) Type() uint16 { return i.Mode & TypeMask }

// hasContent reports whether it is of a type that has any.
func (i *Inode) hasContent() bool {
	t := i.Type()
	return t == TypeRegular || t == TypeDir || t == TypeSymlink
}

func (i *Inode) decode(b []byte, incompat uint32) {
	le := binary.LittleEndian
	i.Mode = le.Uint16(b)
	i.Size = int64(le.Uint32(b[4:]))
	if i.Type() == TypeRegular || incompat&incompatLargeDir != 0 && i.Type() == TypeDir {
		i.Size |= int64(le.Uint32(b[108:])) << 32
	}
	i.flags = le.Uint32(b[32:])
	copy(i.block[:], b[40:])
	if i.flags&flagInline != 0 {
		i.more = inlineRest(b)
	}
}

// inlineRest returns the value of the attribute system.data of the inode b, which
// is what content there is behind the first 60 bytes. Whatever is wrong with it
// means that there is none.
func inlineRest(b []byte) []byte {
	le := binary.LittleEndian
	if len(b) < oldInode+4 {
		return nil
	}
	start := oldInode + int(le.Uint16(b[oldInode:]))
	if start+4 > len(b) || le.Uint32(b[start:]) != eaMagic {
		return nil
	}
	attrs := b[start+4:] // values are at offsets from here
	for e := attrs; len(e) >= eaEntry && le.Uint32(e) != 0; {
		name := int(e[0])
		if len(e) < eaEntry+name {
			return nil
		}
		if e[1] == eaSystem && string(e[eaEntry:eaEntry+name]) == "data" {
			from, n := uint64(le.Uint16(e[2:])), uint64(le.Uint32(e[8:]))
			if from+n > uint64(len(attrs)) {
				return nil
			}
			return attrs[from : from+n]
		}
		e = e[min(len(e), eaEntry+(name+3)&^3):]
	}
	return nil
}

// inline returns the content of an inode that has it within.
func (i *Inode) inline() []byte {
	b := append(i.block[:len(i.block):len(i.block)], i.more...)
	return b[:min(int64(len(b)), i.Size)]
}

// ReadLink returns the target of the symbolic link i.
func (m *Image) ReadLink(ctx context.Context, i *Inode) (string, error) {
	switch {
	case i.Type() != TypeSymlink || i.Size >= maxTarget:
		return "", fmt.Errorf("%w: inode %d is no symbolic link", ErrFormat, i.Number)
	case i.Size < inBlock || i.flags&flagInline != 0:
		return string(i.inline()), nil
	}
	var target []byte
	err := m.Extents(ctx, i, func(e Extent) error {
		b := make([]byte, min(e.Size, maxTarget))
		if err := m.read(ctx, b, e.Off); err != nil {
			return err
		}
		target = append(target, b...)
		return errStop
	})
	if err != nil && !errors.Is(err, errStop) {
		return "", fmt.Errorf("reading symbolic link %d: %w", i.Number, err)
	}
	return string(target[:min(int64(len(target)), i.Size)]), nil
}
