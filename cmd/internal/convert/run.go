package convert

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	layerconvert "github.com/reprise-containers/reprise/backstore/convert"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/transfer"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// maxWriters is how many layers are compressed at a time; each of them by
// several workers.
const maxWriters = 2

// maxImages is how many images of an index are converted at a time.
const maxImages = 4

// conversion is one run.
type conversion struct {
	cfg       Config
	converter string // version and options
	dir       string // temporary
	report    *Report
	found     map[key]found
	transfer  *transfer.Transfer

	slots   chan struct{} // one for each layer with temporary files
	writers chan struct{} // one for each that is compressed

	forgetful sync.Once // the note that the cache can't be written
}

// Run converts an image. When it returns, nothing temporary is left, and with an
// error the destination's name stands for what it stood for before.
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	c := &conversion{
		cfg:       cfg,
		converter: converter(cfg),
		report:    &Report{Source: cfg.Source.Name},
		slots:     make(chan struct{}, cfg.Concurrency),
		writers:   make(chan struct{}, min(maxWriters, cfg.Workers)),
	}
	c.dir, err = os.MkdirTemp(cfg.TempDir, "reprise-convert-")
	if err != nil {
		return nil, fmt.Errorf("making a temporary directory, where --temp-dir says: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.dir)) }()
	c.transfer = c.newTransfer()
	if err := c.learn(ctx); err != nil {
		return nil, err
	}
	if err := c.run(ctx); err != nil {
		return nil, fmt.Errorf("converting %s: %w", cfg.Source.Name, err)
	}
	return c.report, nil
}

// converter names what decides a layer beside its source.
func converter(cfg Config) string {
	size := cfg.VirtualSize
	if size == 0 {
		size = layerconvert.DefaultVirtualSize
	}
	return fmt.Sprintf("%d;%s;%s;%d;%d", layerconvert.Version, fsType, cfg.Compression.Algorithm, cfg.Compression.BlockSize, size)
}

func (c *conversion) run(ctx context.Context) error {
	root, err := c.choose(ctx, c.cfg.Source.Root)
	if err != nil {
		return err
	}
	if c.cfg.Referrer {
		if err := c.keep(ctx, c.cfg.Source.Root); err != nil {
			return fmt.Errorf("copying the source: %w", err)
		}
	}
	out, err := c.node(ctx, root, 0)
	if err != nil {
		return err
	}
	tagged := out.document
	if c.cfg.Referrer {
		if err := c.putDocument(ctx, out.document); err != nil {
			return err
		}
		kept, err := c.cfg.Source.Document(ctx, c.cfg.Source.Root)
		if err != nil {
			return err
		}
		tagged = document{transfer.Plain(kept.Desc), kept.Text}
	}
	if err := c.cfg.Destination.Tag(ctx, tagged.desc, tagged.text); err != nil {
		return err
	}
	c.report.Images, c.report.Skipped = out.images, out.skipped
	c.report.SourceDigest, c.report.Digest = root.Digest, out.desc.Digest
	c.report.MediaType, c.report.Tagged = out.desc.MediaType, tagged.desc.Digest
	return nil
}

// choose follows indexes to the manifest for the platform, if one was asked for.
// A source that is for another platform is an error before anything is copied.
func (c *conversion) choose(ctx context.Context, desc ocispec.Descriptor) (ocispec.Descriptor, error) {
	if c.cfg.Platform == "" {
		return desc, nil
	}
	n, err := source.ChooseManifest(ctx, desc, c.cfg.Platform, c.cfg.Source.Document)
	if err != nil {
		return desc, err
	}
	return n.Desc, c.cfg.Source.CheckPlatform(ctx, n.Desc, n.Manifest.Config, c.cfg.Platform)
}

// keep copies the source to the destination, unless that is where it is.
func (c *conversion) keep(ctx context.Context, desc ocispec.Descriptor) error {
	if r := c.destinationRepository(); r != "" && r == transfer.Repository(c.cfg.Source) {
		return nil
	}
	_, err := c.transfer.Tree(ctx, c.cfg.Source, desc)
	return err
}

// skip is the error of a manifest that is left out of an index.
type skip struct{ error }

// Unwrap returns the reason.
func (s skip) Unwrap() error { return s.error }

// result is what a manifest or index became.
type result struct {
	document
	images  []*Image
	skipped []Skipped
}

// node converts a manifest or index. What the result refers to is at the
// destination, itself it is not yet.
func (c *conversion) node(ctx context.Context, desc ocispec.Descriptor, depth int) (result, error) {
	if depth > source.MaxDepth {
		return result{}, source.ErrDepth
	}
	n, err := c.cfg.Source.Document(ctx, desc)
	if err != nil {
		return result{}, err
	}
	if n.Index {
		return c.index(ctx, n, depth)
	}
	image, doc, err := c.image(ctx, n)
	return result{document: doc, images: []*Image{image}}, err
}

// index converts an index, several of its manifests at the same time if there
// are processors for that: reading a layer keeps little more than one busy.
func (c *conversion) index(ctx context.Context, n source.Document, depth int) (result, error) {
	children := make([]result, len(n.Children))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, min(maxImages, c.cfg.Workers/2)))
	for i, d := range n.Children {
		g.Go(func() (err error) {
			children[i], err = c.child(gctx, d, depth)
			if s := (skip{}); errors.As(err, &s) && gctx.Err() == nil {
				c.cfg.Note(fmt.Sprintf("%s is left out: %v", d.Digest, s))
				children[i] = result{skipped: []Skipped{{d.Digest, s.Error()}}}
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return result{}, err
	}
	out := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{}, Annotations: n.Annotations,
	}
	var r result
	for i, child := range children {
		r.images, r.skipped = append(r.images, child.images...), append(r.skipped, child.skipped...)
		if child.text == nil {
			continue
		}
		d := n.Children[i]
		d.MediaType, d.Digest, d.Size = child.desc.MediaType, child.desc.Digest, child.desc.Size
		d.Data, d.URLs = nil, nil
		out.Manifests = append(out.Manifests, d)
	}
	if len(out.Manifests) == 0 {
		return r, skip{fmt.Errorf("index %s has nothing that can be converted", n.Desc.Digest)}
	}
	if c.cfg.Referrer {
		out.ArtifactType, out.Subject = labels.ConvertedArtifact, new(transfer.Plain(n.Desc))
	}
	var err error
	r.document, err = newDocument(out.MediaType, out)
	return r, err
}

// child converts an entry of an index and puts it.
func (c *conversion) child(ctx context.Context, d ocispec.Descriptor, depth int) (result, error) {
	if _, is := source.Attestation(d); is {
		return result{}, skip{errors.New("an attestation, which is about the source only")}
	}
	r, err := c.node(ctx, d, depth+1)
	if err != nil {
		return r, err
	}
	return r, c.putDocument(ctx, r.document)
}
