package tarblob

import (
	"context"
	"fmt"

	"github.com/reprise-containers/reprise/remote/blob"
)

// EndSize is the length in bytes of the zeros that end an archive.
const EndSize = 2 * blockSize

// maxMember is the largest size an octal field of 11 digits can state.
const maxMember = 1<<33 - 1

// Member is an entry of the archive after the first.
type Member struct {
	Name string
	Range
}

// Next returns where the entry after a payload starts, or the zeros that end
// the archive.
func (r Range) Next() int64 { return padded(r.Offset + r.Size) }

// padded rounds up to whole tar blocks.
func padded(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }

// NextMember returns the entry that follows the payload at in r, or false if
// there is none. It reads one tar block. The error is about an entry that there
// is and that does not fit.
func NextMember(ctx context.Context, r blob.ReaderAt, at Range) (Member, bool, error) {
	off := at.Next()
	if off+blockSize > r.Size() {
		return Member{}, false, nil
	}
	var b [blockSize]byte
	if err := blob.ReadFull(ctx, r, b[:], off); err != nil {
		return Member{}, false, fmt.Errorf("reading the second tar header of %s: %w", blob.Name(r), err)
	}
	if !isHeader(b[:]) {
		return Member{}, false, nil
	}
	m := Member{Name: cString(b[:atMode])}
	var err error
	m.Offset = off + blockSize
	if m.Size, err = parseOctal(b[atSize : atSize+12]); err != nil {
		return m, true, fmt.Errorf("tar header of member %q: %w", m.Name, err)
	}
	if m.Size > r.Size()-m.Offset {
		return m, true, fmt.Errorf("tar member %q of %d bytes at offset %d ends after the blob of %d bytes", m.Name, m.Size, m.Offset, r.Size())
	}
	return m, true, nil
}

// MemberHeader returns the tar block before a read-only file of size bytes that
// belongs to root. It depends on nothing else.
func MemberHeader(name string, size int64) ([]byte, error) {
	if name == "" || len(name) > atMode || size < 0 || size > maxMember {
		return nil, fmt.Errorf("tar member %q of %d bytes does not fit a plain header", name, size)
	}
	b := make([]byte, blockSize)
	copy(b, name)
	copy(b[atMode:], "0000444\x00")
	copy(b[atUID:], "0000000\x00")
	copy(b[atGID:], "0000000\x00")
	copy(b[atSize:], fmt.Sprintf("%011o\x00", size))
	copy(b[atMTime:], "00000000000\x00")
	b[atType] = '0'
	copy(b[atMagic:], "ustar\x0000")
	copy(b[atUser:], "root")
	copy(b[atGroup:], "root")
	putChecksum(b)
	return b, nil
}

// cString returns the bytes of b before the first NUL.
func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
