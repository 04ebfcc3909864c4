package simulate

import (
	"fmt"
	"strconv"
	"strings"
)

// Size is how much a cache holds. One of its fields is set.
type Size struct {
	Share   float64 `json:"share,omitempty"`   // of all distinct content: of its bytes, or with Unit of its objects
	Bytes   int64   `json:"bytes,omitempty"`   //
	Objects int64   `json:"objects,omitempty"` // with Unit only
}

// ParseSize parses "5%", "10GiB" (with parse), or "5000 objects". parse is for sizes
// in bytes.
func ParseSize(text string, parse func(string) (int64, error)) (Size, error) {
	text = strings.TrimSpace(text)
	if n, ok := strings.CutSuffix(text, "%"); ok {
		v, err := strconv.ParseFloat(strings.TrimSpace(n), 64)
		if err != nil || !(v > 0 && v <= 100) {
			return Size{}, fmt.Errorf("size %q: not a share from above 0%% to 100%%", text)
		}
		return Size{Share: v / 100}, nil
	}
	if n, ok := strings.CutSuffix(text, "objects"); ok {
		v, err := strconv.ParseInt(strings.TrimSpace(n), 10, 64)
		if err != nil || v <= 0 {
			return Size{}, fmt.Errorf("size %q: not a positive number of objects", text)
		}
		return Size{Objects: v}, nil
	}
	v, err := parse(text)
	if err != nil || v <= 0 {
		return Size{}, fmt.Errorf("size %q: not of a form such as 5%%, 10GiB or 5000 objects", text)
	}
	return Size{Bytes: v}, nil
}

// String returns the size as ParseSize takes it.
func (s Size) String() string {
	switch {
	case s.Share > 0:
		return strconv.FormatFloat(100*s.Share, 'g', 6, 64) + "%"
	case s.Objects > 0:
		return strconv.FormatInt(s.Objects, 10) + " objects"
	}
	return strconv.FormatInt(s.Bytes, 10) + "B"
}

// of returns the capacity for a trace, in bytes, or with Unit in objects.
func (s Size) of(d *Decoded) (int64, error) {
	switch {
	case s.Share > 0:
		return max(1, int64(s.Share*float64(d.Bytes()))), nil
	case s.Objects > 0 && !d.Unit:
		return 0, fmt.Errorf("size %s: objects are counted with unit only", s)
	case s.Bytes > 0 && d.Unit:
		return 0, fmt.Errorf("size %s: with unit, sizes are shares or objects", s)
	}
	return max(s.Bytes, s.Objects), nil
}
