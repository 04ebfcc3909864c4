package convert

import (
	"context"
	"io"
)

const (
	handoverPiece  = 256 << 10 // bytes
	handoverPieces = 16
)

// readerFunc is a function as an io.Reader.
type readerFunc func(p []byte) (int, error)

// Read implements io.Reader.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// handover is a pipe with room, so that its writer and its reader, one of each,
// wait for each other only now and then.
type handover struct {
	full  chan []byte
	empty chan []byte
	done  chan struct{} // closed when the writer ended, with err
	err   error
	piece []byte // of the reader
	rest  []byte // of it
}

func newHandover() *handover {
	h := &handover{
		full: make(chan []byte, handoverPieces), empty: make(chan []byte, handoverPieces),
		done: make(chan struct{}),
	}
	for range handoverPieces {
		h.empty <- nil // made when it is used
	}
	return h
}

// copyFrom moves all of r and then ends what is read with its error.
func (h *handover) copyFrom(ctx context.Context, r io.Reader) error {
	err := h.move(ctx, r)
	h.err = err
	if err == nil {
		h.err = io.EOF
	}
	close(h.done)
	return err
}

func (h *handover) move(ctx context.Context, r io.Reader) error {
	for {
		var p []byte
		select {
		case p = <-h.empty:
		case <-ctx.Done():
			return ctx.Err()
		}
		if p == nil {
			p = make([]byte, handoverPiece)
		}
		n, err := fill(r, p[:cap(p)])
		if n > 0 {
			h.full <- p[:n] // there is room for every piece
		}
		switch {
		case err == io.EOF: //nolint:errorlint // one that wraps it is another error
			return nil
		case err != nil:
			return err
		}
	}
}

// fill reads until p is full or r returns an error, which it returns as it is:
// io.ReadFull would make the end of a stream look like a truncated one.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = r.Read(p[n:])
		n += k
	}
	return n, err
}

// reader returns the end to read from.
func (h *handover) reader(ctx context.Context) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if len(h.rest) == 0 {
			if h.piece != nil {
				h.empty <- h.piece
				h.piece = nil
			}
			if err := h.next(ctx); err != nil {
				return 0, err
			}
		}
		n := copy(p, h.rest)
		h.rest = h.rest[n:]
		return n, nil
	})
}

// next takes the next full piece.
func (h *handover) next(ctx context.Context) error {
	select {
	case h.piece = <-h.full:
	case <-ctx.Done():
		return ctx.Err()
	case <-h.done:
		select { // what was full when the end came
		case h.piece = <-h.full:
		default:
			return h.err
		}
	}
	h.rest = h.piece
	return nil
}
