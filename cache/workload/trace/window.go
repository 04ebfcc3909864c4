package trace

import (
	"errors"
	"io"
	"time"
)

// window holds some requests of a file and gives them in order of time, those of one
// time in the order of the file.
type window struct {
	// Files are nearly in order, so nearly all come at no cost at the end of q, which
	// is in order. Those that are earlier than one before them are in late. So of two
	// of the same time, one in q and one in late, that in q came first.
	q    []Request
	head int
	late heap[straggler]
	top  time.Time // the latest so far
	seq  uint64

	ended bool
}

type straggler struct {
	Request
	seq uint64
}

func (w *window) len() int { return len(w.q) - w.head + len(w.late.a) }

// fill reads until n requests are held or the file ends, which is io.EOF.
func (w *window) fill(r Reader, n int) error {
	for w.len() < n && !w.ended {
		x, err := r.Next()
		if errors.Is(err, io.EOF) {
			w.ended = true
			break
		}
		if err != nil {
			return err
		}
		w.push(x)
	}
	if w.ended {
		return io.EOF
	}
	return nil
}

// push takes a request. One without a time among others that have times keeps its
// place.
func (w *window) push(x Request) {
	if x.Time.IsZero() {
		x.Time = w.top
	}
	if x.Time.Before(w.top) {
		if w.late.less == nil {
			w.late.less = func(a, b *straggler) bool {
				c := a.Time.Compare(b.Time)
				return c < 0 || c == 0 && a.seq < b.seq
			}
		}
		w.seq++
		w.late.push(straggler{x, w.seq})
		return
	}
	w.top = x.Time
	// Moved only when half of it is free, so at most once for each request.
	if len(w.q) == cap(w.q) && w.head > len(w.q)/2 {
		n := copy(w.q, w.q[w.head:])
		clear(w.q[n:])
		w.q, w.head = w.q[:n], 0
	}
	w.q = append(w.q, x)
}

// peek returns the earliest request, nil when there is none.
func (w *window) peek() *Request {
	switch {
	case w.head == len(w.q) && len(w.late.a) == 0:
		return nil
	case w.head == len(w.q), len(w.late.a) > 0 && w.late.a[0].Time.Before(w.q[w.head].Time):
		return &w.late.a[0].Request
	}
	return &w.q[w.head]
}

// pop takes the earliest request; there is one.
func (w *window) pop() Request {
	if w.head == len(w.q) || w.peek() != &w.q[w.head] {
		return w.late.pop().Request
	}
	x := w.q[w.head]
	w.q[w.head] = Request{}
	if w.head++; w.head == len(w.q) {
		w.q, w.head = w.q[:0], 0
	}
	return x
}

// first returns the earliest time that is held, zero when none has one.
func (w *window) first() (t time.Time) {
	earlier := func(x *Request) {
		if !x.Time.IsZero() && (t.IsZero() || x.Time.Before(t)) {
			t = x.Time
		}
	}
	for i := range w.q[w.head:] {
		earlier(&w.q[w.head+i])
	}
	for i := range w.late.a {
		earlier(&w.late.a[i].Request)
	}
	return t
}
