package trace

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
)

// Writer writes records as JSON lines, or as one JSON array, the form of the
// published traces.
type Writer struct {
	w     *bufio.Writer
	array bool
	n     int64
}

// NewWriter returns a writer of JSON lines.
func NewWriter(w io.Writer) *Writer { return &Writer{w: bufio.NewWriterSize(w, 64<<10)} }

// NewArrayWriter returns a writer of a JSON array, a record a line.
func NewArrayWriter(w io.Writer) *Writer {
	return &Writer{w: bufio.NewWriterSize(w, 64<<10), array: true}
}

// Write writes one record. It may be held until Close.
func (w *Writer) Write(r Record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("writing a trace: %w", err)
	}
	before := ""
	if w.array {
		before = ",\n"
		if w.n == 0 {
			before = "["
		}
	}
	w.n++
	w.w.WriteString(before)
	w.w.Write(text)
	if !w.array {
		w.w.WriteByte('\n')
	}
	return w.flushed(nil)
}

// flushed returns an error of earlier writes, which a bufio.Writer keeps.
func (w *Writer) flushed(err error) error {
	if err == nil {
		_, err = w.w.Write(nil)
	}
	if err != nil {
		return fmt.Errorf("writing a trace: %w", err)
	}
	return nil
}

// Close writes what is held. It does not close what it writes to.
func (w *Writer) Close() error {
	if w.array {
		if w.n == 0 {
			w.w.WriteByte('[')
		}
		w.w.WriteString("]\n")
	}
	return w.flushed(w.w.Flush())
}
