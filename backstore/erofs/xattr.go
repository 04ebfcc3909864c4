package erofs

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	xattrHeader = 12 // bytes before the first attribute
	xattrEntry  = 4  // bytes before a name
	maxXattrs   = xattrHeader + 4*(0xffff-1)
)

// xattrPrefix is a start of names that is stored as a number.
type xattrPrefix struct {
	index byte
	text  string
}

// prefixes are those that the format knows and Linux reads, longest first.
var prefixes = []xattrPrefix{
	{3, "system.posix_acl_default"},
	{2, "system.posix_acl_access"},
	{6, "security."},
	{4, "trusted."},
	{1, "user."},
}

func splitXattr(name string) (index byte, suffix string, ok bool) {
	for _, p := range prefixes {
		if rest, found := strings.CutPrefix(name, p.text); found {
			acl := !strings.HasSuffix(p.text, ".")
			return p.index, rest, len(rest) <= 255 && acl == (rest == "")
		}
	}
	return 0, "", false
}

// KnownXattr reports whether the format can hold an attribute of that name.
// Linux's other file systems refuse most of those it can't.
func KnownXattr(name string) bool {
	_, _, ok := splitXattr(name)
	return ok
}

// encodeXattrs returns what follows an inode that has these attributes: nothing
// if there are none.
func encodeXattrs(xattrs map[string]string) ([]byte, error) {
	if len(xattrs) == 0 {
		return nil, nil
	}
	b := make([]byte, xattrHeader)
	for _, name := range slices.Sorted(maps.Keys(xattrs)) {
		value := xattrs[name]
		index, suffix, ok := splitXattr(name)
		if !ok || len(value) > 0xffff {
			return nil, fmt.Errorf("extended attribute %q of %d bytes can't be stored in erofs", name, len(value))
		}
		b = append(b, byte(len(suffix)), index)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
		b = append(append(b, suffix...), value...)
		b = append(b, make([]byte, roundUp(len(b), 4)-len(b))...)
	}
	if len(b) > maxXattrs {
		return nil, fmt.Errorf("extended attributes of %d bytes, more than the %d that erofs can store with a file", len(b), maxXattrs)
	}
	return b, nil
}

// decodeXattrs is the reverse. Shared attributes, which this package does not
// write, are refused.
func decodeXattrs(b []byte) (map[string]string, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if len(b) < xattrHeader || b[4] != 0 {
		return nil, fmt.Errorf("%w: shared extended attributes", ErrFormat)
	}
	xattrs := map[string]string{}
	for b = b[xattrHeader:]; len(b) >= xattrEntry && (b[0] != 0 || b[1] != 0); {
		nameLen, valueLen := int(b[0]), int(binary.LittleEndian.Uint16(b[2:]))
		size := roundUp(xattrEntry+nameLen+valueLen, 4)
		i := slices.IndexFunc(prefixes, func(p xattrPrefix) bool { return p.index == b[1] })
		if i < 0 || xattrEntry+nameLen+valueLen > len(b) {
			return nil, fmt.Errorf("%w: extended attribute of type %d, %d bytes", ErrFormat, b[1], size)
		}
		value := b[xattrEntry+nameLen:]
		xattrs[prefixes[i].text+string(b[xattrEntry:xattrEntry+nameLen])] = string(value[:valueLen])
		b = b[min(size, len(b)):]
	}
	return xattrs, nil
}
