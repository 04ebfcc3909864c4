package tarblob

import (
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Writer writes the archive around one payload, byte for byte as overlaybd
// does: Write the payload, then Close.
type Writer struct {
	w       io.Writer
	at      io.WriterAt // nil if the size was known from the start
	size    int64       // promised size, or -1
	written int64
	closed  bool
}

// NewWriter writes an archive for a payload of exactly size bytes to w.
func NewWriter(w io.Writer, size int64) (*Writer, error) {
	if size < 0 {
		return nil, fmt.Errorf("writing tar archive: negative payload size %d", size)
	}
	if _, err := w.Write(header(size, true)); err != nil {
		return nil, fmt.Errorf("writing tar header: %w", err)
	}
	return &Writer{w: w, size: size}, nil
}

// Target is a file at its start: what is written in order lands where WriteAt
// finds it.
type Target interface {
	io.Writer
	io.WriterAt
}

// NewUnsizedWriter writes an archive for a payload of unknown size to t,
// which must be empty. Until Close the archive is marked as unfinished, and no
// reader takes it for a tar archive.
func NewUnsizedWriter(t Target) (*Writer, error) {
	if _, err := t.Write(header(0, false)); err != nil {
		return nil, fmt.Errorf("writing tar header: %w", err)
	}
	return &Writer{w: t, at: t, size: -1}, nil
}

// Write appends to the payload.
func (w *Writer) Write(p []byte) (int, error) {
	if w.closed {
		return 0, errors.New("writing tar payload: writer is closed")
	}
	if w.size >= 0 && w.written+int64(len(p)) > w.size {
		return 0, fmt.Errorf("writing tar payload: more than the announced %d bytes", w.size)
	}
	n, err := w.w.Write(p)
	w.written += int64(n)
	return n, err
}

// WriteAt overwrites what was written of the payload; off counts from its
// start. Only a Writer made by NewUnsizedWriter can.
func (w *Writer) WriteAt(p []byte, off int64) (int, error) {
	if w.at == nil {
		return 0, errors.New("overwriting tar payload: archive is streamed")
	}
	if off < 0 || off+int64(len(p)) > w.written {
		return 0, fmt.Errorf("overwriting tar payload: %d bytes at %d of %d written", len(p), off, w.written)
	}
	return w.at.WriteAt(p, paxPayload+off)
}

// Close pads the payload, ends the archive and, if the size was unknown,
// writes the final header. It does not close what lies below.
func (w *Writer) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	if w.size >= 0 && w.written != w.size {
		return fmt.Errorf("closing tar archive: payload has %d of %d announced bytes", w.written, w.size)
	}
	pad := (blockSize - w.written%blockSize) % blockSize
	if _, err := w.w.Write(make([]byte, pad+2*blockSize)); err != nil {
		return fmt.Errorf("ending tar archive: %w", err)
	}
	if w.at == nil {
		return nil
	}
	if _, err := w.at.WriteAt(header(w.written, true), 0); err != nil {
		return fmt.Errorf("writing final tar header: %w", err)
	}
	return nil
}

// header returns the bytes before the payload. An unfinished one has no valid
// magic in either header block.
func header(size int64, finished bool) []byte {
	b := make([]byte, paxPayload)
	pax, body, file := b[:blockSize], b[blockSize:2*blockSize], b[2*blockSize:]

	record := paxRecord("size", strconv.FormatInt(size, 10))
	copy(body, record)
	copy(pax, "overlaybd.pax")
	copy(pax[atSize:], fmt.Sprintf("%11o ", len(record)))
	pax[atType] = 'x'

	copy(file[atMode:], "100644 ")
	copy(file[atUID:], "     0 ")
	copy(file[atGID:], "     0 ")
	// The real size is the pax record's; overlaybd leaves the field at 0.
	copy(file[atSize:], "          0 ")
	copy(file[atMTime:], "          0 ")
	file[atType] = '0'
	copy(file[atUser:], "root")
	copy(file[atGroup:], "root")
	if !finished {
		copy(file, "overlaybd.new")
		copy(file[atMagic:], "xxtar\x00xx")
		return b
	}
	copy(file, "overlaybd.commit")
	copy(pax[atMagic:], "ustar\x0000")
	copy(file[atMagic:], "ustar\x0000")
	putChecksum(pax)
	putChecksum(file)
	return b
}

func putChecksum(b []byte) {
	sum, _ := checksums(b)
	copy(b[atChecksum:atChecksum+8], fmt.Sprintf("%6o \x00", sum))
}

// paxRecord returns "<length> key=value\n", whose length counts its own digits.
func paxRecord(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	n := len(rest)
	for digits := 1; ; digits++ {
		if s := strconv.Itoa(n + digits); len(s) == digits {
			return s + rest
		}
	}
}
