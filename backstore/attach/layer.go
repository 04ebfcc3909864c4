package attach

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
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
	spec   backstore.Layer
	remote func() (blob.Blob, error) // opens the blob without asking for it

	file    atomic.Pointer[blob.File]
	blob    atomic.Pointer[blob.Blob]
	damaged atomic.Pointer[[]span] // parts of file that are read from blob

	mu     sync.Mutex // guards the setting of what is above, and closed
	closed bool
}

// span is a part of a layer, in bytes.
type span struct{ off, end int64 }

// maxDamaged is how many parts of a file may be damaged; with more, all of it is.
const maxDamaged = 64

func newLayer(spec backstore.Layer, ref string, open OpenBlob) *layer {
	return &layer{spec: spec, remote: func() (blob.Blob, error) { return open(ref, spec.Descriptor()) }}
}

// open makes l readable, without asking a registry for anything.
func (l *layer) open() error {
	if l.file.Load() != nil || l.blob.Load() != nil {
		return nil
	}
	if !l.spec.Remote() {
		return l.useFile(l.spec.File)
	}
	return l.openBlob()
}

func (l *layer) openBlob() error {
	b, err := l.remote()
	if err == nil {
		l.blob.CompareAndSwap(nil, &b)
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

// source returns what n bytes at off are read from now. l must have been opened.
func (l *layer) source(off, n int64) blob.ReaderAt {
	f := l.file.Load()
	if f != nil && !l.isDamaged(off, n) {
		return f
	}
	return *l.blob.Load()
}

// isDamaged reports whether something of n bytes at off is damaged in the file.
func (l *layer) isDamaged(off, n int64) bool {
	d := l.damaged.Load()
	return d != nil && slices.ContainsFunc(*d, func(s span) bool { return s.off < off+n && off < s.end })
}

// Size implements blob.ReaderAt.
func (l *layer) Size() int64 { return l.source(0, 0).Size() }

// ReadAt implements blob.ReaderAt.
func (l *layer) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return l.source(off, int64(len(p))).ReadAt(ctx, p, off)
}

// Present implements blob.Presence.
func (l *layer) Present(off, n int64) bool { return blob.Present(l.source(off, n), off, n) }

// Discard implements blob.Discarder. What is damaged in a local copy of a blob
// is read from the registry again, as long as the image is attached.
func (l *layer) Discard(off, n int64) {
	f := l.file.Load()
	if f == nil || l.isDamaged(off, n) {
		blob.Discard(l.source(off, n), off, n)
		return
	}
	// What containerd unpacked is no copy of the blob but what is in it, and
	// smaller.
	if l.spec.Digest == "" || f.Size() != l.spec.Size || l.blob.Load() == nil && l.openBlob() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []span
	if d := l.damaged.Load(); d != nil {
		all = slices.Clone(*d)
	}
	if all = append(all, span{off, off + n}); len(all) > maxDamaged {
		all = []span{{0, l.spec.Size}}
	}
	l.damaged.Store(&all)
}

// String names the layer in errors.
func (l *layer) String() string {
	if now := l.now(); !now.Remote() {
		return now.File
	}
	return l.spec.Digest.String()
}
