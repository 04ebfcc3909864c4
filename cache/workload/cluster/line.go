package cluster

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Bounds of a line in bytes: of a stranger's, and of a peer's that has proved itself.
const (
	maxStrange = 4 << 10
	maxLine    = 32 << 20 // of an order with the passwords of many clients
)

// Errors of peers that do not speak as they should.
var (
	errLine    = errors.New("a line is too long")
	errMessage = errors.New("a line is no message")
)

// wire is a stream of messages in both directions.
type wire struct {
	in    *bufio.Reader
	flush func() error // what was written to out; nil: there is no need

	mu  sync.Mutex // of out
	out io.Writer
}

func newWire(in io.Reader, out io.Writer, flush func() error) *wire {
	return &wire{in: bufio.NewReaderSize(in, 64<<10), out: out, flush: flush}
}

// send sends a message. It may be called concurrently.
func (w *wire) send(m message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("writing a message: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.out.Write(append(line, '\n')); err != nil || w.flush == nil {
		return err
	}
	return w.flush()
}

// receive returns the next message, of which the line has up to limit bytes.
// The error is io.EOF if the stream ended before it.
func (w *wire) receive(limit int) (message, error) {
	var m message
	line, err := w.line(limit)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, fmt.Errorf("%w: %w", errMessage, err)
	}
	return m, nil
}

// line returns the next line. It is valid until the next call.
func (w *wire) line(limit int) ([]byte, error) {
	var whole []byte
	for {
		part, err := w.in.ReadSlice('\n')
		if len(whole)+len(part) > limit {
			return nil, errLine
		}
		switch {
		case err == nil && whole == nil:
			return part, nil
		case err == nil:
			return append(whole, part...), nil
		case errors.Is(err, bufio.ErrBufferFull):
			whole = append(whole, part...)
		case errors.Is(err, io.EOF) && len(whole)+len(part) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}
