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
	after := "\n"
	if w.array {
		after = ""
	}
	w.n++
	return w.put(before + string(text) + after)
}

// put writes text. It returns errors of earlier writes, too, which a bufio.Writer
// keeps.
func (w *Writer) put(text string) error {
	if _, err := w.w.WriteString(text); err != nil {
		return fmt.Errorf("writing a trace: %w", err)
	}
	return nil
}

// Close writes what is held. It does not close what it writes to.
func (w *Writer) Close() error {
	if w.array {
		end := "]\n"
		if w.n == 0 {
			end = "[]\n"
		}
		if err := w.put(end); err != nil {
			return err
		}
	}
	if err := w.w.Flush(); err != nil {
		return fmt.Errorf("writing a trace: %w", err)
	}
	return nil
}
