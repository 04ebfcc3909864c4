package attach

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/remote/blob"
)

// errDetached says that an image was detached while something was to be done
// with it.
var errDetached = errors.New("image is detached")

// layer is a layer of an image: a blob in a registry until there is a local
// file, that file from then on. Reads under way go on where they began.
type layer struct {
	spec backstore.Layer
	file atomic.Pointer[blob.File]
	blob atomic.Pointer[blob.Blob]

	mu     sync.Mutex // guards the setting of file, and closed
	closed bool
}

// open makes l readable, without asking a registry for anything.
func (l *layer) open(ref string, open OpenBlob) error {
	if l.file.Load() != nil || l.blob.Load() != nil {
		return nil
	}
	if !l.spec.Remote() {
		return l.useFile(l.spec.File)
	}
	b, err := open(ref, l.spec.Descriptor())
	if err == nil {
		l.blob.Store(&b)
	}
	return err
}

// useFile makes l read from the file at path.
func (l *layer) useFile(path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errDetached
	}
	if l.file.Load() != nil {
		return nil
	}
	f, err := blob.OpenFile(path)
	if err != nil {
		return err
	}
	if l.spec.Remote() && f.Size() != l.spec.Size {
		f.Close()
		return fmt.Errorf("%s has %d bytes, the blob %d", path, f.Size(), l.spec.Size)
	}
	l.file.Store(f)
	return nil
}

// wants reports whether l is read from a registry and a file in dir is to
// change that.
func (l *layer) wants(dgst digest.Digest, dir string) bool {
	return l.spec.Remote() && l.spec.Digest == dgst && l.spec.Dir == dir && l.file.Load() == nil
}

// now returns what l is made of at present.
func (l *layer) now() backstore.Layer {
	spec := l.spec
	if spec.Remote() && l.file.Load() != nil {
		spec.File = filepath.Join(spec.Dir, backstore.LayerFile)
	}
	return spec
}

// close releases the file.
func (l *layer) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if f := l.file.Load(); f != nil {
		f.Close() // read-only: nothing can be lost
	}
}

// source returns what is read from now. l must have been opened.
func (l *layer) source() blob.ReaderAt {
	if f := l.file.Load(); f != nil {
		return f
	}
	return *l.blob.Load()
}

// Size implements blob.ReaderAt.
func (l *layer) Size() int64 { return l.source().Size() }

// ReadAt implements blob.ReaderAt.
func (l *layer) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return l.source().ReadAt(ctx, p, off)
}

// Present implements blob.Presence.
func (l *layer) Present(off, n int64) bool { return blob.Present(l.source(), off, n) }

// Discard implements blob.Discarder.
func (l *layer) Discard(off, n int64) { blob.Discard(l.source(), off, n) }

// String names the layer in errors.
func (l *layer) String() string {
	if now := l.now(); !now.Remote() {
		return now.File
	}
	return l.spec.Digest.String()
}
