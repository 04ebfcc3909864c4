package erofs

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

const (
	direntSize = 12
	maxName    = 255

	// inlineDir is up to how many bytes a directory is kept behind its inode.
	inlineDir = 2048
	// dirFill is up to how many bytes the blocks of a directory that has
	// several are filled when it is written: a name that a later layer adds
	// then changes one block and not all of them.
	dirFill = BlockSize - 384
)

// Dirent is a name in a directory.
type Dirent struct {
	// Name is at most 255 bytes long.
	Name string
	// NID is the number of the inode.
	NID uint64
	// Type is the type of the inode, in the numbers of the format.
	Type uint8
}

// fileType returns the format's number of a type of Attr.Mode.
func fileType(mode uint16) uint8 {
	switch mode & TypeMask {
	case TypeRegular:
		return 1
	case TypeDir:
		return typeDir
	case TypeChar:
		return 3
	case TypeBlock:
		return 4
	case TypeFIFO:
		return 5
	case TypeSocket:
		return 6
	case TypeSymlink:
		return typeSymlink
	}
	return 0
}

const (
	typeDir     = 2
	typeSymlink = 7
)

// namesSize returns the bytes that a block with these names has.
func namesSize(names []string) int {
	n := direntSize * len(names)
	for _, name := range names {
		n += len(name)
	}
	return n
}

// splitNames distributes sorted names to blocks: one if it takes them all, else
// several with some room left in each.
func splitNames(names []string) [][]string {
	if namesSize(names) <= BlockSize {
		return [][]string{names}
	}
	var blocks [][]string
	size, start := 0, 0
	for i, name := range names {
		n := direntSize + len(name)
		if size+n > dirFill {
			blocks = append(blocks, names[start:i:i])
			size, start = 0, i
		}
		size += n
	}
	return append(blocks, names[start:])
}

// encodeDirents returns a directory block without what fills it up.
func encodeDirents(entries []Dirent) []byte {
	name := direntSize * len(entries)
	b := make([]byte, 0, BlockSize)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint64(b, e.NID)
		b = binary.LittleEndian.AppendUint16(b, uint16(name))
		b = append(b, e.Type, 0)
		name += len(e.Name)
	}
	for _, e := range entries {
		b = append(b, e.Name...)
	}
	return b
}

// decodeDirents decodes a directory block, of which b has what is in use.
func decodeDirents(b []byte) ([]Dirent, error) {
	if len(b) < direntSize {
		return nil, fmt.Errorf("%w: directory block of %d bytes", ErrFormat, len(b))
	}
	first := int(binary.LittleEndian.Uint16(b[8:]))
	if first < direntSize || first%direntSize != 0 || first > len(b) {
		return nil, fmt.Errorf("%w: directory block with names at %d of %d", ErrFormat, first, len(b))
	}
	entries := make([]Dirent, first/direntSize)
	for i := range entries {
		d := b[i*direntSize:]
		from, to := int(binary.LittleEndian.Uint16(d[8:])), len(b)
		if i+1 < len(entries) {
			to = int(binary.LittleEndian.Uint16(d[direntSize+8:]))
		}
		if from < first || to > len(b) || from > to {
			return nil, fmt.Errorf("%w: name %d of a directory block lies at %d to %d of %d", ErrFormat, i, from, to, len(b))
		}
		name := b[from:to]
		if i+1 == len(entries) {
			if end := bytes.IndexByte(name, 0); end >= 0 {
				name = name[:end]
			}
		}
		if len(name) == 0 || len(name) > maxName {
			return nil, fmt.Errorf("%w: name of %d bytes in a directory", ErrFormat, len(name))
		}
		entries[i] = Dirent{string(name), binary.LittleEndian.Uint64(d), d[10]}
	}
	return entries, nil
}
