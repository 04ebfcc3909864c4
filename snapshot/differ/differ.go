package differ

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/convert"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// Snapshots knows what mounts are of; *snapshot.Snapshotter is one. Its methods
// return errdefs.ErrNotImplemented for mounts that are not what they are for.
type Snapshots interface {
	// Difference calls use with the layer of what was written to the writable
	// device that upper is of, the mounts of a snapshot, since it was lower,
	// those of its parent, and with the type of the file system in it.
	Difference(ctx context.Context, lower, upper []mount.Mount, use UseLayer) error

	// Overlaid returns the overlaybd image that lower is of, if upper is of a
	// snapshot that lies on it with overlayfs.
	Overlaid(ctx context.Context, lower, upper []mount.Mount) (backstore.Image, error)

	// Scratch calls fill with the directory on which a new writable device over
	// img is mounted, and then use with the layer of what fill wrote.
	Scratch(ctx context.Context, img backstore.Image, fill func(ctx context.Context, dir string) error, use UseLayer) error

	// Place makes the layer blob r all that the active snapshot with these
	// mounts, which lies on an overlaybd image, consists of.
	Place(ctx context.Context, mounts []mount.Mount, r io.Reader) error
}

// UseLayer reads l, which it must not keep. fsType is the type of the file system
// in the device, "" if it is not known.
type UseLayer = func(ctx context.Context, l *lsmt.Layer, fsType string) error

// Containerd is where the calls come from.
type Containerd interface {
	// Content returns containerd's content store for the call of ctx, and a
	// context for it.
	Content(ctx context.Context) (context.Context, content.Store, error)

	// Keep returns a context with which what is written to the content store is
	// kept for long enough for the caller to refer to it.
	Keep(ctx context.Context) (context.Context, error)
}

// OpenLayers opens the layer blobs of an image, bottom first, which done closes.
type OpenLayers func(img backstore.Image) (layers []blob.ReaderAt, done func(), err error)

// Config says where a Differ has what it needs from.
type Config struct {
	Containerd Containerd
	Layers     OpenLayers
	// Compression is that of the layers that are made.
	Compression zfile.Options
	// Temp is a directory for temporary files of a layer's size.
	Temp string
	// Command executes this program, with what makes it call Child first.
	Command []string
}

// Differ is a diff.Comparer and a diff.Applier.
type Differ struct {
	snapshots Snapshots
	cfg       Config
}

var (
	_ diff.Comparer = (*Differ)(nil)
	_ diff.Applier  = (*Differ)(nil)
)

// New returns a Differ for the snapshots of s.
func New(s Snapshots, cfg Config) *Differ { return &Differ{s, cfg} }

// Compare implements diff.Comparer. Which media type and compression a client
// asks for does not matter: an overlaybd layer is a tar archive that is not
// compressed as a whole, and the descriptor says so.
func (d *Differ) Compare(ctx context.Context, lower, upper []mount.Mount, opts ...diff.Opt) (ocispec.Descriptor, error) {
	var config diff.Config
	for _, opt := range opts {
		if err := opt(&config); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	desc, err := d.compare(ctx, lower, upper, config)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("making an overlaybd layer: %w", err)
	}
	return desc, nil
}

func (d *Differ) compare(ctx context.Context, lower, upper []mount.Mount, config diff.Config) (desc ocispec.Descriptor, err error) {
	use := func(ctx context.Context, l *lsmt.Layer, fsType string) error {
		desc, err = d.store(ctx, written{l, d.cfg.Compression}, fsType, config)
		return err
	}
	err = d.snapshots.Difference(ctx, lower, upper, use)
	if !errdefs.IsNotImplemented(err) {
		return desc, err
	}
	img, err := d.snapshots.Overlaid(ctx, lower, upper)
	if err != nil {
		return desc, err
	}
	files := comparison{Lower: lower, Upper: upper}
	if img.FSType == "erofs" { // which the kernel does not write
		return d.convert(ctx, img, files, config)
	}
	err = d.snapshots.Scratch(ctx, img, func(ctx context.Context, dir string) error {
		files.Target = dir
		return files.start(ctx, d.cfg.Command, nil)
	}, use)
	return desc, err
}

// convert makes a layer of the files that differ without a device.
func (d *Differ) convert(ctx context.Context, img backstore.Image, files comparison, config diff.Config) (desc ocispec.Descriptor, err error) {
	layers, done, err := d.cfg.Layers(img)
	if err != nil {
		return desc, err
	}
	defer done()
	c, err := newChain(ctx, layers, convert.Options{Compression: d.cfg.Compression, Dir: d.cfg.Temp})
	if err != nil {
		return desc, err
	}
	defer c.Close()
	r, w := io.Pipe()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := files.start(gctx, d.cfg.Command, w)
		w.CloseWithError(err)
		return err
	})
	var l *convert.Layer
	g.Go(func() error {
		l, err = c.Add(gctx, r, convert.ID{})
		r.CloseWithError(err)
		return err
	})
	if err = g.Wait(); l != nil {
		defer l.Close()
	}
	if err != nil {
		return desc, err
	}
	return d.store(ctx, l, img.FSType, config)
}

// newChain returns a chain on top of layers. If they were made otherwise than by
// package convert it is errdefs.ErrNotImplemented.
func newChain(ctx context.Context, layers []blob.ReaderAt, opts convert.Options) (*convert.Chain, error) {
	below, err := backstore.Open(ctx, layers)
	if err != nil {
		return nil, err
	}
	opts.VirtualSize = below.Size()
	c, err := convert.NewChain(opts)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrNotImplemented)
	}
	for _, l := range layers {
		if err := c.Skip(ctx, l); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// layer writes its blob to f, an empty file.
type layer interface {
	Write(ctx context.Context, f *os.File) (backstore.Blob, error)
}

// written is the layer of what was written to a device.
type written struct {
	*lsmt.Layer
	compression zfile.Options
}

// Write implements layer.
func (l written) Write(ctx context.Context, f *os.File) (backstore.Blob, error) {
	return backstore.WriteBlob(ctx, f, l.compression, func(w io.Writer) error {
		return l.Commit(ctx, w, lsmt.Identity{})
	})
}

// store writes the blob of l to containerd's content store.
func (d *Differ) store(ctx context.Context, l layer, fsType string, config diff.Config) (ocispec.Descriptor, error) {
	f, err := os.CreateTemp(d.cfg.Temp, "layer-")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return ocispec.Descriptor{}, err
	}
	b, err := l.Write(ctx, f)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	made := labels.Native{Blob: b.Digest, BlobSize: b.Size, FSType: fsType, Chunks: b.Chunks}
	desc := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: b.Digest, Size: b.Size,
		Annotations: made.Annotations(),
	}
	ctx, store, err := d.cfg.Containerd.Content(ctx)
	if err == nil {
		ctx, err = d.cfg.Containerd.Keep(ctx)
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return desc, write(ctx, store, desc, io.NewSectionReader(f, 0, b.Size), config)
}

// Apply implements diff.Applier.
func (d *Differ) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, _ ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	applied, err := d.apply(ctx, desc, mounts)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("applying layer %s: %w", desc.Digest, err)
	}
	return applied, nil
}

func (d *Differ) apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount) (ocispec.Descriptor, error) {
	ctx, store, err := d.cfg.Containerd.Content(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	r, err := store.ReaderAt(ctx, desc)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer r.Close()
	if !isLayer(r) {
		return ocispec.Descriptor{}, fmt.Errorf("it is no overlaybd layer: %w", errdefs.ErrNotImplemented)
	}
	if err := d.snapshots.Place(ctx, mounts, content.NewReader(r)); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: desc.Digest, Size: r.Size()}, nil
}
