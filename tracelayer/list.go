package tracelayer

import (
	"bytes"
	"fmt"
	"strings"
)

// MaxList is the longest priority list, in bytes. Upstream reads no more.
const MaxList = 64 << 10

// blanks are what a line of a list may have around its path: what upstream
// trims, and the end of a line as other systems write it.
const blanks = " \t\r"

// ParseList returns the paths of a priority list, which has one a line. A path
// that ends with a slash means all that is in that directory. Upstream skips
// lines with characters other than A-Z a-z 0-9 _ - . and /; here any file name
// is one, but for blanks at its ends, which are trimmed. Empty lines say
// nothing.
func ParseList(data []byte) ([]string, error) {
	if len(data) > MaxList {
		return nil, fmt.Errorf("priority list has %d bytes, more than %d", len(data), MaxList)
	}
	var paths []string
	for i, line := range bytes.Split(data, []byte("\n")) {
		p := strings.Trim(string(line), blanks)
		if strings.ContainsRune(p, 0) {
			return nil, fmt.Errorf("line %d of the priority list has a zero byte: it is no text", i+1)
		}
		if p != "" {
			paths = append(paths, p)
		}
	}
	return paths, nil
}

// EncodeList returns the priority list of paths. It is an error if ParseList
// would not return just these.
func EncodeList(paths []string) ([]byte, error) {
	var b []byte
	for _, p := range paths {
		switch {
		case p == "":
			return nil, fmt.Errorf("empty path in the priority list")
		case strings.ContainsAny(p, "\n\x00"):
			return nil, fmt.Errorf("path %q in the priority list: it has characters that no line can hold", p)
		case strings.Trim(p, blanks) != p:
			return nil, fmt.Errorf("path %q in the priority list: blanks at its ends would be trimmed", p)
		}
		b = append(append(b, p...), '\n')
	}
	if len(b) > MaxList {
		return nil, fmt.Errorf("priority list has %d bytes, more than %d", len(b), MaxList)
	}
	return b, nil
}
