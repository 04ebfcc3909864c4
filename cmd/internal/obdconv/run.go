package obdconv

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cmd/internal/imagestore"
)

const (
	// maxWriters is how many layers are compressed at a time.
	maxWriters = 2
	// leaseLife and leaseBytes bound what is kept of a conversion that was killed:
	// an hour, and another one for so many bytes of layers.
	leaseLife  = time.Hour
	leaseBytes = 4 << 30
	// readableSize is the largest device in GB that every reader reads.
	readableSize = 2048
)

// conversion is one run.
type conversion struct {
	cfg       Config
	id        string // of its snapshots and content
	dir       string // temporary
	source    *imagestore.Image
	snapshots snapshots.Snapshotter
	writers   chan struct{} // one for each layer that is compressed
}

// Run converts an image. When it returns, nothing temporary is left, and with an
// error the target's name stands for what it stood for before.
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if _, err := cfg.Client.GetSnapshotterCapabilities(ctx, cfg.Snapshotter); err != nil {
		return nil, fmt.Errorf("looking for snapshotter %q: %w (it needs a [proxy_plugins.%s] section in containerd's configuration)",
			cfg.Snapshotter, err, cfg.Snapshotter)
	}
	c := &conversion{
		cfg: cfg, id: newID(), snapshots: cfg.Client.SnapshotService(cfg.Snapshotter),
		writers: make(chan struct{}, maxWriters),
	}
	if c.source, err = imagestore.Open(ctx, cfg.Client, cfg.Source); err != nil {
		return nil, err
	}
	if c.dir, err = os.MkdirTemp(cfg.TempDir, "ctr-obdconv-"); err != nil {
		return nil, fmt.Errorf("making a temporary directory, where --temp-dir says: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.dir)) }()
	// Its end removes the snapshots, and of an image that was not finished what
	// there is of it.
	ctx, end, err := imagestore.Lease(ctx, cfg.Client, c.leaseLife())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	r, err := c.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("converting %s: %w", cfg.Source, err)
	}
	return r, nil
}

// newID returns a name that no other conversion has.
func newID() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return "obdconv-" + hex.EncodeToString(b[:])
}

// leaseLife returns how long what is temporary is kept from garbage collection,
// should this program not remove it.
func (c *conversion) leaseLife() time.Duration {
	size := int64(0)
	for _, l := range c.source.Manifest.Layers {
		size += l.Size
	}
	return leaseLife * time.Duration(1+size/leaseBytes)
}

func (c *conversion) run(ctx context.Context) (*Report, error) {
	kept, err := overlaybd(c.source.Manifest.Layers)
	if err != nil {
		return nil, err
	}
	if c.cfg.VirtualSize > readableSize {
		c.cfg.Note(fmt.Sprintf("a device of %d GB: overlaybd's own reader fails beyond %d", c.cfg.VirtualSize, readableSize))
	}
	r := &Report{Name: c.cfg.Target}
	for _, d := range c.source.Dropped {
		r.Dropped = append(r.Dropped, d.Digest)
		c.cfg.Note(fmt.Sprintf("%s is dropped: a trace layer is about the image that it was recorded with, and belongs on top of it only", d.Digest))
	}
	layers, err := c.layers(kept)
	if err != nil {
		return nil, err
	}
	if err := c.base(ctx, layers, kept); err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.build(gctx, g, layers, kept) })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	desc, err := c.name(ctx, layers)
	if err != nil {
		return nil, err
	}
	r.Target = desc.Digest
	for i, l := range layers {
		r.Layers = append(r.Layers, Layer{
			Source: l.source.Digest, SourceSize: l.source.Size, Digest: l.out.Digest, Size: l.out.Size, Kept: i < kept,
		})
	}
	return r, nil
}

// name makes the image of layers in the content store. The media types are
// overlaybd's: it takes the manifest for docker's, whatever it was.
func (c *conversion) name(ctx context.Context, layers []*layer) (ocispec.Descriptor, error) {
	config, err := imagestore.ParseObject(c.source.Config)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("parsing the config: %w", err)
	}
	out := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: images.MediaTypeDockerSchema2Manifest,
		Annotations: c.source.Manifest.Annotations,
	}
	root := ocispec.RootFS{Type: "layers"}
	for _, l := range layers {
		// The blob is a tar archive that is not compressed as a whole.
		root.DiffIDs = append(root.DiffIDs, l.out.Digest)
		out.Layers = append(out.Layers, l.out)
	}
	if err := config.Set("rootfs", root); err != nil {
		return ocispec.Descriptor{}, err
	}
	text, err := imagestore.Encode(config)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("encoding the config: %w", err)
	}
	d := imagestore.Documents{
		Name: c.cfg.Target, Manifest: out, Config: text, ConfigType: c.source.Manifest.Config.MediaType,
	}
	if layers[0].kept { // they may be nowhere but where they were pulled from
		d.Labels = c.source.Origins
	}
	return imagestore.Make(ctx, c.cfg.Client, d)
}
