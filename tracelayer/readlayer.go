package tracelayer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/reprise-containers/reprise/remote/blob"
)

// maxMembers is how many members of a tar archive are looked at: a trace layer
// has three.
const maxMembers = 64

// Span is a range of bytes of a trace layer's blob.
type Span struct {
	Off, Size int64
}

// Layer says where the members of a trace layer lie. One that is not there is
// zero.
type Layer struct {
	Slot, Plan, Data Span
}

// ReadLayer finds the members of the trace layer r by reading the headers of the
// archive. It is an error if there is no slot.
func ReadLayer(ctx context.Context, r blob.ReaderAt) (Layer, error) {
	var found Layer
	in := io.NewSectionReader(&window{ctx: ctx, r: r}, 0, r.Size())
	tr := tar.NewReader(in)
	for range maxMembers {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Layer{}, fmt.Errorf("reading trace layer: %w", err)
		}
		off, err := in.Seek(0, io.SeekCurrent)
		if err != nil {
			return Layer{}, fmt.Errorf("reading trace layer: %w", err)
		}
		if err := found.add(h, Span{Off: off, Size: h.Size}, r.Size()); err != nil {
			return Layer{}, fmt.Errorf("reading trace layer: %w", err)
		}
	}
	if found.Slot == (Span{}) {
		return Layer{}, fmt.Errorf("reading trace layer: no member named %q", SlotName)
	}
	return found, nil
}

// add notes a member of a blob of size bytes.
func (l *Layer) add(h *tar.Header, at Span, size int64) error {
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	var to *Span
	var limit int64
	switch path.Clean(h.Name) {
	case SlotName:
		to, limit = &l.Slot, MaxSlot
	case PlanName:
		to, limit = &l.Plan, MaxPlan
	case DataName:
		to, limit = &l.Data, size
	default:
		return nil
	}
	switch {
	case *to != Span{}:
		return fmt.Errorf("two members named %q", h.Name)
	case at.Size > limit:
		return fmt.Errorf("member %q has %d bytes, more than %d", h.Name, at.Size, limit)
	case at.Off > size-at.Size:
		return fmt.Errorf("member %q of %d bytes at offset %d goes past the end at %d", h.Name, at.Size, at.Off, size)
	}
	*to = at
	return nil
}

// windowSize is how many bytes are read at once, as each read may be a request:
// the end of a member's padding, and one or two headers.
const windowSize = 2048

// window is a blob as an io.ReaderAt, for as long as a call lasts, that keeps
// what it read last.
type window struct {
	ctx context.Context //nolint:containedctx // see above
	r   blob.ReaderAt
	off int64
	buf []byte
}

// ReadAt implements io.ReaderAt for an io.SectionReader, which asks for nothing
// outside of the blob.
func (w *window) ReadAt(p []byte, off int64) (int, error) {
	if off < w.off || off+int64(len(p)) > w.off+int64(len(w.buf)) {
		n := min(max(windowSize, int64(len(p))), w.r.Size()-off)
		w.off, w.buf = off, make([]byte, max(n, 0))
		if err := blob.ReadFull(w.ctx, w.r, w.buf, off); err != nil {
			w.buf = nil
			return 0, err
		}
	}
	n := copy(p, w.buf[off-w.off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
