package backstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/reprise-containers/reprise/remote/blob"
)

// window is a layer blob while it is being opened. Opening asks for small
// pieces that lie side by side: tar header, ZFile header and LSMT header at
// the start; LSMT index, LSMT trailer and jump table at the end. Each read that
// window makes takes in some bytes around what was asked for, and answers the
// next ones from memory. After close it holds nothing and passes reads on.
type window struct {
	blob.ReaderAt
	held atomic.Pointer[ranges]
}

// ranges are the bytes read so far.
type ranges struct {
	mu    sync.Mutex
	parts []part
}

type part struct {
	off int64
	p   []byte
}

const (
	// headSize is read at the start: tar and ZFile headers up to 2048, and a
	// compressed LSMT header, about 130 bytes unless blocks are large.
	headSize = 2560
	// leadSize is read before anything else: enough for LSMT trailer and a
	// short index before the jump table.
	leadSize = 2048
	// maxHeld bounds what is kept of one read: its start.
	maxHeld = 64 << 10
	// maxWidened bounds the reads that are widened at all.
	maxWidened = 1 << 20
)

func newWindow(r blob.ReaderAt) *window {
	w := &window{ReaderAt: r}
	w.held.Store(&ranges{})
	return w
}

// close ends the opening.
func (w *window) close() { w.held.Store(nil) }

// ReadAt implements blob.ReaderAt.
func (w *window) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	held := w.held.Load()
	if held == nil || len(p) > maxWidened || off < 0 || off+int64(len(p)) > w.Size() {
		return w.ReaderAt.ReadAt(ctx, p, off)
	}
	if held.read(p, off) {
		return len(p), nil
	}
	start, end := max(off-leadSize, 0), off+int64(len(p))
	if off < headSize {
		start, end = 0, min(max(end, headSize), w.Size())
	}
	buf := make([]byte, end-start)
	n, err := w.ReaderAt.ReadAt(ctx, buf, start)
	if n < len(buf) {
		return 0, err
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	copy(p, buf[off-start:])
	if len(buf) > maxHeld {
		buf = bytes.Clone(buf[:maxHeld])
	}
	held.add(part{start, buf})
	return len(p), nil
}

// Present implements blob.Presence.
func (w *window) Present(off, n int64) bool { return blob.Present(w.ReaderAt, off, n) }

// Discard implements blob.Discarder. The window forgets everything.
func (w *window) Discard(off, n int64) {
	if held := w.held.Load(); held != nil {
		held.clear()
	}
	blob.Discard(w.ReaderAt, off, n)
}

// String names the blob below in errors.
func (w *window) String() string { return blob.Name(w.ReaderAt) }

func (r *ranges) read(p []byte, off int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, part := range r.parts {
		if off >= part.off && off+int64(len(p)) <= part.off+int64(len(part.p)) {
			copy(p, part.p[off-part.off:])
			return true
		}
	}
	return false
}

func (r *ranges) add(p part) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parts = append(r.parts, p)
}

func (r *ranges) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parts = nil
}
