package tarblob

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// HeadSize is how many bytes at the start of a blob Locate wants to see.
const HeadSize = paxPayload

const (
	blockSize    = 512
	ustarPayload = blockSize     // header
	paxPayload   = 3 * blockSize // pax header, its body, header
)

// Byte positions in a tar header block.
const (
	atMode     = 100
	atUID      = 108
	atGID      = 116
	atSize     = 124
	atMTime    = 136
	atChecksum = 148
	atType     = 156
	atMagic    = 257
	atVersion  = 263
	atUser     = 265
	atGroup    = 297
)

// Range is where a payload lies in a blob, in bytes.
type Range struct {
	Offset, Size int64
}

// Locate finds the payload of a blob of size bytes that starts with head, the
// first HeadSize bytes or the whole blob if it is smaller. It returns false if
// the blob is not a tar archive in the sense of overlaybd, which leaves out
// GNU headers, and an error if it is one but its payload does not fit.
func Locate(head []byte, size int64) (Range, bool, error) {
	if len(head) < blockSize || !isHeader(head[:blockSize]) {
		return Range{}, false, nil
	}
	var r Range
	var err error
	if head[atType] == 'x' {
		r.Offset = paxPayload
		if len(head) < paxPayload {
			return r, true, fmt.Errorf("tar header is cut off: blob has %d of %d bytes", len(head), paxPayload)
		}
		r.Size, err = paxSize(head[:paxPayload])
	} else {
		r.Offset = ustarPayload
		r.Size, err = parseOctal(head[atSize : atSize+12])
	}
	if err != nil {
		return r, true, fmt.Errorf("tar header: %w", err)
	}
	if r.Size > size-r.Offset {
		return r, true, fmt.Errorf("tar payload of %d bytes at offset %d ends after the blob of %d bytes", r.Size, r.Offset, size)
	}
	return r, true, nil
}

// isHeader reports whether b is a ustar header with the right checksum.
func isHeader(b []byte) bool {
	if string(b[atMagic:atMagic+5]) != "ustar" || string(b[atVersion:atVersion+2]) != "00" {
		return false
	}
	want, err := parseOctal(b[atChecksum : atChecksum+8])
	if err != nil {
		return false
	}
	unsigned, signed := checksums(b)
	return want == unsigned || want == signed
}

// checksums sums the bytes of header b, its checksum field taken as spaces,
// as tar demands and as some old writers did.
func checksums(b []byte) (unsigned, signed int64) {
	for i, c := range b {
		if i >= atChecksum && i < atChecksum+8 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return unsigned, signed
}

// parseOctal parses a number field: octal digits between spaces and NULs.
func parseOctal(b []byte) (int64, error) {
	s := strings.Trim(string(b), " \x00")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 8, 63)
	if err != nil {
		return 0, fmt.Errorf("number field %q is not octal", s)
	}
	return int64(n), nil
}

// paxSize returns the size record of the pax header at the start of head.
func paxSize(head []byte) (int64, error) {
	n, err := parseOctal(head[atSize : atSize+12])
	if err != nil {
		return 0, err
	}
	if n > blockSize {
		return 0, fmt.Errorf("pax header of %d bytes, want at most %d", n, blockSize)
	}
	body := head[blockSize : blockSize+n]
	for len(body) > 0 {
		length, rest, found := bytes.Cut(body, []byte(" "))
		n, err := strconv.ParseUint(string(length), 10, 16)
		if !found || err != nil || int(n) <= len(length)+1 || int(n) > len(body) {
			return 0, fmt.Errorf("malformed pax record %q", body)
		}
		record := rest[:int(n)-len(length)-1]
		if value, ok := bytes.CutPrefix(record, []byte("size=")); ok {
			size, err := strconv.ParseUint(strings.TrimSuffix(string(value), "\n"), 10, 63)
			if err != nil {
				return 0, fmt.Errorf("pax size %q is not a number", value)
			}
			return int64(size), nil
		}
		body = body[n:]
	}
	return 0, fmt.Errorf("pax header has no size record")
}
