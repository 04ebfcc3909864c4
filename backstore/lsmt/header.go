package lsmt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// HeaderSize is the length in bytes of the header and of the trailer.
const HeaderSize = 4096

const (
	structSize  = 390
	magicString = "LSMT\x00\x01\x02\x00" + "\x65\x7e\x63\xd2\x94\x44\x08\x4c\xa2\xd2\xc8\xec\x4f\xcf\xae\x8a"
	magicSize   = len(magicString)
	uuidSize    = 36
	nullUUID    = "00000000-0000-0000-0000-000000000000"
	maxTagSize  = 256
)

// Flag bits; readers ignore all others.
const (
	flagHeader = 1 << 0 // header, else trailer
	flagData   = 1 << 1 // data file, else index file
	flagSealed = 1 << 2
	flagSparse = 1 << 4
)

// ErrFormat is wrapped by the error of Open for a blob that is not an LSMT
// file.
var ErrFormat = errors.New("not an LSMT layer")

var errMagic = errors.New("wrong magic")

// Identity is what a layer says about itself. UUIDs are decorative: nothing
// checks that parents match.
type Identity struct {
	UUID        string // 36 characters
	Parent      string // 36 characters
	Tag         string // free text, at most 256 bytes
	VirtualSize int64  // of the disk in bytes; 0 if the layer leaves it to those below
}

// header holds the fields of a header or trailer block that mean something.
type header struct {
	Identity
	flags       uint32
	indexOffset uint64 // in bytes
	records     uint64 // in the index, padding included
}

func (h *header) has(flag uint32) bool { return h.flags&flag != 0 }

// is reports whether exactly the flags in want are set among those in mask.
func (h *header) is(want, mask uint32) bool { return h.flags&mask == want }

// decodeHeader decodes a header or trailer block and checks its magic.
func decodeHeader(b []byte) (*header, error) {
	if string(b[:magicSize]) != magicString {
		return nil, errMagic
	}
	le := binary.LittleEndian
	h := &header{
		flags:       le.Uint32(b[28:]),
		indexOffset: le.Uint64(b[32:]),
		records:     le.Uint64(b[40:]),
		Identity: Identity{
			VirtualSize: int64(le.Uint64(b[48:])),
			UUID:        text(b[56 : 56+uuidSize]),
			Parent:      text(b[93 : 93+uuidSize]),
			Tag:         text(b[134 : 134+maxTagSize]),
		},
	}
	return h, nil
}

// checkSize checks the virtual size, which is only looked at in the block that
// counts for the kind of layer.
func (id Identity) checkSize() error {
	if id.VirtualSize < 0 || id.VirtualSize/SectorSize > offsetMask {
		return fmt.Errorf("virtual size %d exceeds what the format can address", uint64(id.VirtualSize))
	}
	return nil
}

// text returns b up to its first NUL.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// encode returns h as a block of HeaderSize bytes.
func (h *header) encode() []byte {
	b := make([]byte, HeaderSize)
	copy(b, magicString)
	le := binary.LittleEndian
	le.PutUint32(b[24:], structSize)
	le.PutUint32(b[28:], h.flags)
	le.PutUint64(b[32:], h.indexOffset)
	le.PutUint64(b[40:], h.records)
	le.PutUint64(b[48:], uint64(h.VirtualSize))
	copy(b[56:], h.UUID)
	copy(b[93:], h.Parent)
	b[132], b[133] = 1, 1 // version, sub-version
	copy(b[134:], h.Tag)
	return b
}

// canonical returns id as it is written, or an error for what does not fit.
func (id Identity) canonical() (Identity, error) {
	var err error
	if id.UUID, err = canonicalUUID(id.UUID); err != nil {
		return id, err
	}
	if id.Parent, err = canonicalUUID(id.Parent); err != nil {
		return id, err
	}
	if len(id.Tag) > maxTagSize {
		return id, fmt.Errorf("user tag of %d bytes, the format has room for %d", len(id.Tag), maxTagSize)
	}
	if id.VirtualSize%SectorSize != 0 {
		return id, fmt.Errorf("virtual size %d is not a multiple of %d", id.VirtualSize, SectorSize)
	}
	return id, id.checkSize()
}

// canonicalUUID returns s in upper case, and the null UUID for "".
func canonicalUUID(s string) (string, error) {
	if s == "" {
		return nullUUID, nil
	}
	for i, c := range s {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return "", fmt.Errorf("malformed UUID %q", s)
			}
		} else if !strings.ContainsRune("0123456789abcdefABCDEF", c) {
			return "", fmt.Errorf("malformed UUID %q", s)
		}
	}
	if len(s) != uuidSize {
		return "", fmt.Errorf("malformed UUID %q", s)
	}
	return strings.ToUpper(s), nil
}
