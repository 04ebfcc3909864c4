package attach

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/tracelayer"
)

// OpenBlob opens a blob of the repository of ref without asking its registry
// for anything.
type OpenBlob func(ref string, desc ocispec.Descriptor) (blob.Blob, error)

// image is a device whose layers are opened by the first read, so that it can
// be served while its registry cannot be reached.
type image struct {
	spec   backstore.Image
	layers []*layer // of spec, in its order
	size   int64    // bytes
	// part says that a writable layer lies on the image, which may have made the
	// device larger: size is an upper bound then, and there are zeros behind the
	// end of the layers.
	part bool
	// recorder notes the reads of the layers; nil if nobody does.
	recorder *tracelayer.Recorder

	opening chan struct{} // holds one token; whoever has it opens
	merged  atomic.Pointer[lsmt.Image]
	closed  bool // belongs to whoever has the token
}

func newImage(spec backstore.Image, size int64, open OpenBlob) *image {
	m := &image{spec: spec, size: size, opening: make(chan struct{}, 1)}
	for _, l := range spec.Layers {
		m.layers = append(m.layers, newLayer(l, spec.Ref, open))
	}
	return m
}

// unrecorded returns m with the same layers and no recorder. It is closed with m.
func (m *image) unrecorded() *image {
	return &image{spec: m.spec, layers: m.layers, size: m.size, opening: make(chan struct{}, 1)}
}

// Size implements device.Device.
func (m *image) Size() int64 { return m.size }

// ReadAt implements device.Device.
func (m *image) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	merged, err := m.load(ctx)
	if err != nil {
		return 0, err
	}
	if m.part && off < m.size && off+int64(len(p)) > merged.Size() {
		held := p[:max(min(merged.Size()-off, int64(len(p))), 0)]
		clear(p[len(held):])
		return len(p), blob.ReadFull(ctx, merged, held, off)
	}
	return merged.ReadAt(ctx, p, off)
}

// Present implements blob.Presence.
func (m *image) Present(off, n int64) bool {
	merged := m.merged.Load()
	if merged != nil && m.part {
		n = max(min(n, merged.Size()-off), 0)
	}
	return merged != nil && (n == 0 || blob.Present(merged, off, n))
}

// NextData implements lsmt.Sparse. Of layers that were not opened yet it knows
// nothing, so they may hold data everywhere.
func (m *image) NextData(off int64) (start, end int64, err error) {
	if merged := m.merged.Load(); merged != nil {
		return merged.NextData(off)
	}
	if off >= m.size {
		return 0, 0, io.EOF
	}
	return off, m.size, nil
}

// local reports whether all of the image can be read without a registry.
func (m *image) local() bool {
	merged := m.merged.Load()
	return len(m.layers) == 0 || merged != nil && merged.Local()
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
		return nil, errDetached
	}
	merged, err := m.openLayers(ctx)
	if err == nil && m.size != 0 && merged.Size() != m.size && (!m.part || merged.Size() > m.size) {
		err = fmt.Errorf("device has %d bytes, but had %d when it was attached", merged.Size(), m.size)
	}
	if err != nil {
		return nil, err
	}
	if m.size == 0 { // nobody but Attach knows the image yet
		m.size = merged.Size()
	}
	m.merged.Store(merged)
	return merged, nil
}

// close releases local layer files; reads under way may fail, later ones do.
func (m *image) close() {
	m.opening <- struct{}{}
	defer func() { <-m.opening }()
	m.closed = true
	m.merged.Store(nil)
	for _, l := range m.layers {
		l.close()
	}
}

// openLayers opens and merges the layers. What could be opened stays so if
// something else fails.
func (m *image) openLayers(ctx context.Context) (*lsmt.Image, error) {
	readers := make([]blob.ReaderAt, len(m.layers))
	for i, l := range m.layers {
		if err := l.open(); err != nil {
			return nil, fmt.Errorf("opening layer %d (%s) of %s: %w", i, l, m.spec.Ref, err)
		}
		readers[i] = l
	}
	if m.recorder != nil {
		return backstore.OpenRecorded(ctx, readers, m.recorder)
	}
	return backstore.Open(ctx, readers)
}

// now returns what the image is made of at present.
func (m *image) now() backstore.Image {
	spec := m.spec
	spec.Layers = make([]backstore.Layer, len(m.layers))
	for i, l := range m.layers {
		spec.Layers[i] = l.now()
	}
	return spec
}
