package trace

import (
	"errors"
	"io"
	"strings"
	"time"
)

// IsOriginal reports whether the original replayer takes the request: a GET or PUT
// of what has "manifest" or "blobs" in its URI, with bytes. A size that is not known
// counts as some.
func IsOriginal(r Request) bool {
	return (r.Method == "GET" || r.Method == "PUT") && r.Size != 0 &&
		(strings.Contains(r.URI, "manifest") || strings.Contains(r.URI, "blobs"))
}

// Filter returns the requests of r that keep takes. Delays are those of r.
func Filter(r Reader, keep func(Request) bool) Reader { return &filter{r, keep} }

type filter struct {
	r    Reader
	keep func(Request) bool
}

func (f *filter) Next() (Request, error) {
	for {
		r, err := f.r.Next()
		if err != nil || f.keep(r) {
			return r, err
		}
	}
}

// Limit is how much of a trace is used: all that comes within so many seconds of the
// first request, or so many requests. The zero value is all.
type Limit struct {
	Within   time.Duration // of the first request, inclusive; 0: no limit
	Requests int64         // 0: no limit
}

// Reader returns the beginning of r.
func (l Limit) Reader(r Reader) Reader {
	if l == (Limit{}) {
		return r
	}
	return &limited{r: r, limit: l}
}

type limited struct {
	r     Reader
	limit Limit
	n     int64
	over  bool
}

func (l *limited) Next() (Request, error) {
	if l.over || l.limit.Requests > 0 && l.n == l.limit.Requests {
		return Request{}, io.EOF
	}
	r, err := l.r.Next()
	if err != nil {
		return r, err
	}
	if l.limit.Within > 0 && r.Delay > l.limit.Within {
		l.over = true
		return Request{}, io.EOF
	}
	l.n++
	return r, nil
}

// Loop returns what open gives, one reader after the other: times of them, or for
// ever when times is 0. Delays and times go on where the one before ended, one mean
// interval later. Readers with a Close are closed; the one that is being read by Close of
// what is returned, an io.Closer.
func Loop(open func() (Reader, error), times int) Reader { return &loop{open: open, left: times} }

type loop struct {
	open  func() (Reader, error)
	left  int // rounds to begin; 0 with started unset: for ever
	r     Reader
	n     int64 // requests in this round
	shift time.Duration
	last  time.Duration // delay of the last request given
	round int
}

func (l *loop) Next() (Request, error) {
	for {
		if l.r == nil {
			if l.left > 0 && l.round == l.left {
				return Request{}, io.EOF
			}
			var err error
			if l.r, err = l.open(); err != nil {
				return Request{}, err
			}
			l.round++
			l.n = 0
		}
		r, err := l.r.Next()
		if errors.Is(err, io.EOF) {
			empty := l.n == 0
			l.end()
			if empty {
				return r, err // for ever would be in vain
			}
			continue
		}
		if err != nil {
			return r, err
		}
		l.n++
		r.Delay += l.shift
		if !r.Time.IsZero() {
			r.Time = r.Time.Add(l.shift)
		}
		l.last = r.Delay
		return r, nil
	}
}

// Close ends the loop.
func (l *loop) Close() error {
	var err error
	if c, ok := l.r.(io.Closer); ok {
		err = c.Close()
	}
	l.r, l.left, l.round = nil, 1, 1 // no further round
	return err
}

func (l *loop) end() {
	if c, ok := l.r.(io.Closer); ok {
		c.Close()
	}
	l.r = nil
	if l.n > 1 {
		l.shift = l.last + (l.last-l.shift)/time.Duration(l.n-1)
	} else {
		l.shift = l.last + time.Second
	}
}
