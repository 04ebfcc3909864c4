package trace

import "io"

// window holds some requests of a file, in order of time. Files are nearly in
// order, so a new request nearly always goes to the end.
type window struct {
	q     []Request
	head  int
	ended bool
}

func (w *window) len() int { return len(w.q) - w.head }

// fill reads until n requests are held or the file ends, which is io.EOF.
func (w *window) fill(r Reader, n int) error {
	for w.len() < n && !w.ended {
		x, err := r.Next()
		if err == io.EOF {
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

func (w *window) push(x Request) {
	if w.head > 0 && len(w.q) == cap(w.q) {
		n := copy(w.q, w.q[w.head:])
		clear(w.q[n:])
		w.q, w.head = w.q[:n], 0
	}
	w.q = append(w.q, x)
	for i := len(w.q) - 1; i > w.head && x.Time.Before(w.q[i-1].Time); i-- {
		w.q[i], w.q[i-1] = w.q[i-1], w.q[i]
	}
}

func (w *window) peek() (*Request, bool) {
	if w.len() == 0 {
		return nil, false
	}
	return &w.q[w.head], true
}

// pop takes the earliest request; there is one.
func (w *window) pop() Request {
	x := w.q[w.head]
	w.q[w.head] = Request{}
	if w.head++; w.head == len(w.q) {
		w.q, w.head = w.q[:0], 0
	}
	return x
}
