package proxy

import (
	"strconv"
	"strings"
)

// window is a stretch [off, off+n) of a blob that a client wants.
type window struct {
	off, n int64
}

// wanted is what a Range header asks for, before the size is known.
type wanted struct {
	first int64 // of bytes=first-last; -1: the last n bytes
	last  int64 // inclusive; -1: to the end
	n     int64 // of bytes=-n
}

// parseRange parses a Range header of one range, RFC 9110 section 14.2. ok is
// false for what a server ignores, and answers in whole: another unit, what is
// not understood, and several ranges, of which no client of registries asks.
func parseRange(header string) (w wanted, ok bool) {
	unit, spec, found := strings.Cut(header, "=")
	if !found || !strings.EqualFold(unit, "bytes") {
		return w, false
	}
	first, last, found := strings.Cut(spec, "-")
	if !found {
		return w, false
	}
	if first == "" {
		n, ok := digits(last)
		return wanted{first: -1, n: n}, ok
	}
	w.first, ok = digits(first)
	w.last = -1
	if ok && last != "" {
		w.last, ok = digits(last)
		ok = ok && w.last >= w.first
	}
	return w, ok
}

// of applies the range to size bytes; ok is false if it can not be satisfied.
func (w wanted) of(size int64) (win window, ok bool) {
	switch {
	case w.first < 0:
		n := min(w.n, size)
		return window{size - n, n}, n > 0
	case w.first >= size:
		return win, false
	case w.last < 0 || w.last >= size:
		return window{w.first, size - w.first}, true
	}
	return window{w.first, w.last - w.first + 1}, true
}

// header is the Range header that asks an upstream for the same.
func (w wanted) header() string {
	switch {
	case w.first < 0:
		return "bytes=-" + strconv.FormatInt(w.n, 10)
	case w.last < 0:
		return "bytes=" + strconv.FormatInt(w.first, 10) + "-"
	}
	return "bytes=" + strconv.FormatInt(w.first, 10) + "-" + strconv.FormatInt(w.last, 10)
}

// parseContentRange parses "bytes <first>-<last>/<size>", RFC 9110 section
// 14.4; off is the first and n how many they are. A size that is not said is
// refused.
func parseContentRange(header string) (win window, size int64, ok bool) {
	unit, rest, _ := strings.Cut(header, " ")
	span, total, _ := strings.Cut(rest, "/")
	a, b, _ := strings.Cut(span, "-")
	first, ok1 := digits(a)
	last, ok2 := digits(b)
	size, ok3 := digits(total)
	if !strings.EqualFold(unit, "bytes") || !ok1 || !ok2 || !ok3 || last < first || last >= size {
		return window{}, 0, false
	}
	return window{first, last - first + 1}, size, true
}

// contentRange is the header of a 206.
func contentRange(win window, size int64) string {
	b := make([]byte, 0, 64)
	b = append(b, "bytes "...)
	b = strconv.AppendInt(b, win.off, 10)
	b = append(b, '-')
	b = strconv.AppendInt(b, win.off+win.n-1, 10)
	b = append(b, '/')
	b = strconv.AppendInt(b, size, 10)
	return string(b)
}

// digits parses a number without a sign that fits in 62 bits, so that sums of
// two can not overflow.
func digits(s string) (int64, bool) {
	if s == "" || s[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 62)
	return int64(n), err == nil
}
