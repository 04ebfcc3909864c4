package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// array is a file with one JSON array of records, which is complete after each
// write: the last bytes, that close it, are overwritten by the next one.
type array struct {
	f   *os.File
	end int64 // where the closing is
}

const (
	arrayOpen  = "[\n"
	arrayClose = "\n]\n"
)

// openArray opens the file and finds the end of what is complete in it: a write may
// have been cut off by a crash.
func openArray(path string) (*array, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening access log: %w", err)
	}
	a := &array{f: f}
	if err := a.find(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening access log %s: %w", path, err), f.Close())
	}
	return a, nil
}

// find sets end, behind the last complete record or the opening bracket.
func (a *array) find() error {
	st, err := a.f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return errors.New("a trace is written to regular files only")
	}
	size := st.Size()
	if size == 0 {
		return nil
	}
	head := make([]byte, 2)
	if _, err := a.f.ReadAt(head, 0); err != nil || string(head) != arrayOpen {
		return errors.New("it is something else than a trace")
	}
	const window = 64 << 10 // more than a record has
	from := max(size-window, 0)
	tail := make([]byte, size-from)
	if _, err := a.f.ReadAt(tail, from); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	a.end = from + int64(lastRecord(tail, from == 0))
	if a.end == from && from > 0 {
		return errors.New("its end is no trace")
	}
	return nil
}

// lastRecord returns the length of text up to the end of its last complete record:
// a record ends with a brace and a newline, or a comma before that.
func lastRecord(text []byte, first bool) int {
	if bytes.HasSuffix(text, []byte(arrayClose)) {
		return len(text) - len(arrayClose)
	}
	i := bytes.LastIndex(text, []byte("}\n"))
	j := bytes.LastIndex(text, []byte("},\n"))
	switch {
	case max(i, j) >= 0:
		return max(i, j) + 1
	case first:
		return len(arrayOpen) - 1 // "[", no record yet
	}
	return 0
}

// write implements sink.
func (a *array) write(records []byte) error {
	records = bytes.TrimSuffix(records, []byte("\n"))
	text := make([]byte, 0, len(records)+len(records)/100+8)
	switch a.end {
	case 0:
		text = append(text, arrayOpen...)
	case 1:
		text = append(text, '\n')
	default:
		text = append(text, ",\n"...)
	}
	text = append(text, bytes.ReplaceAll(records, []byte("}\n{"), []byte("},\n{"))...)
	n := len(text)
	text = append(text, arrayClose...)
	if _, err := a.f.WriteAt(text, a.end); err != nil {
		// What was there is complete again, or will be at the next start.
		_, _ = a.f.WriteAt([]byte(arrayClose), a.end)
		return err
	}
	a.end += int64(n)
	return a.f.Truncate(a.end + int64(len(arrayClose)))
}

// close implements sink.
func (a *array) close() error { return a.f.Close() }
