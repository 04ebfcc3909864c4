package attach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
)

// OpenBlob opens a blob of the repository of ref without asking its registry
// for anything.
type OpenBlob func(ref string, desc ocispec.Descriptor) (blob.Blob, error)

// image is a device whose layers are opened by the first read, so that it can
// be served while its registry cannot be reached.
type image struct {
	spec backstore.Image
	size int64 // bytes
	open OpenBlob

	opening chan struct{} // holds one token; whoever has it opens
	merged  atomic.Pointer[lsmt.Image]
	files   []io.Closer // of local layers; belongs to whoever has the token
	closed  bool        // likewise
}

func newImage(spec backstore.Image, size int64, open OpenBlob) *image {
	return &image{spec: spec, size: size, open: open, opening: make(chan struct{}, 1)}
}

// Size implements device.Device.
func (m *image) Size() int64 { return m.size }

// ReadAt implements device.Device.
func (m *image) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	merged, err := m.load(ctx)
	if err != nil {
		return 0, err
	}
	return merged.ReadAt(ctx, p, off)
}

// Present implements blob.Presence.
func (m *image) Present(off, n int64) bool {
	merged := m.merged.Load()
	return merged != nil && blob.Present(merged, off, n)
}

// local reports whether all of the image can be read without a registry.
func (m *image) local() bool {
	merged := m.merged.Load()
	return merged != nil && merged.Local()
}

// load returns the merged layers and opens them if need be. A failure is not
// kept: the next read tries again.
func (m *image) load(ctx context.Context) (*lsmt.Image, error) {
	if merged := m.merged.Load(); merged != nil {
		return merged, nil
	}
	select {
	case m.opening <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-m.opening }()
	if merged := m.merged.Load(); merged != nil {
		return merged, nil
	}
	if m.closed {
		return nil, errors.New("image is detached")
	}
	merged, files, err := openLayers(ctx, m.spec, m.open)
	if err == nil && m.size != 0 && merged.Size() != m.size {
		err = fmt.Errorf("device has %d bytes, but had %d when it was attached", merged.Size(), m.size)
		closeAll(files)
	}
	if err != nil {
		return nil, err
	}
	if m.size == 0 { // nobody but Attach knows the image yet
		m.size = merged.Size()
	}
	m.files = files
	m.merged.Store(merged)
	return merged, nil
}

// close releases local layer files; reads under way may fail, later ones do.
func (m *image) close() {
	m.opening <- struct{}{}
	defer func() { <-m.opening }()
	m.closed = true
	m.merged.Store(nil)
	closeAll(m.files)
	m.files = nil
}

// openLayers opens and merges the layers of spec.
func openLayers(ctx context.Context, spec backstore.Image, open OpenBlob) (_ *lsmt.Image, files []io.Closer, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
			files = nil
		}
	}()
	layers := make([]blob.ReaderAt, len(spec.Layers))
	for i, l := range spec.Layers {
		if l.Remote() {
			desc := ocispec.Descriptor{Digest: l.Digest, Size: l.Size}
			if layers[i], err = open(spec.Ref, desc); err != nil {
				return nil, files, fmt.Errorf("opening layer %s of %s: %w", l.Digest, spec.Ref, err)
			}
			continue
		}
		f, err := blob.OpenFile(l.File)
		if err != nil {
			return nil, files, fmt.Errorf("opening layer %d: %w", i, err)
		}
		files = append(files, f)
		layers[i] = f
	}
	merged, err := backstore.Open(ctx, layers)
	if err != nil {
		return nil, files, err
	}
	return merged, files, nil
}

func closeAll(files []io.Closer) {
	for _, f := range files {
		f.Close() // read-only: nothing can be lost
	}
}
