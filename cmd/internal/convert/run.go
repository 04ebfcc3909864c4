package convert

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore/convert"
	"github.com/reprise-containers/reprise/cmd/internal/source"
)

// ArtifactType is the artifact type of converted manifests and indexes that
// refer to their source; upstream's.
const ArtifactType = "application/vnd.containerd.overlaybd.native.v1+json"

// version is that of what is written for equal input. It is raised when that
// changes, so that new and old layers are not mixed.
const version = 1

// maxDepth bounds indexes in indexes.
const maxDepth = 4

var errDepth = fmt.Errorf("indexes in indexes more than %d deep", maxDepth)

// maxWriters is how many layers are compressed at a time; each of them by
// several workers.
const maxWriters = 2

// conversion is one run.
type conversion struct {
	cfg       Config
	converter string // version and options
	dir       string // temporary
	report    *Report
	found     map[key]found

	slots   chan struct{} // one for each layer behind adding
	writers chan struct{} // one for each that is compressed
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
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.dir)) }()
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
		size = convert.DefaultVirtualSize
	}
	return fmt.Sprintf("%d;%s;%s;%d;%d", version, fsType, cfg.Compression.Algorithm, cfg.Compression.BlockSize, size)
}

func (c *conversion) run(ctx context.Context) error {
	source := c.cfg.Source.Root
	root, err := c.choose(ctx, source)
	if err != nil {
		return err
	}
	if c.cfg.Referrer {
		if err := c.keep(ctx, source); err != nil {
			return fmt.Errorf("copying the source: %w", err)
		}
	}
	out, err := c.node(ctx, root, 0)
	if err != nil {
		return err
	}
	tagged := out
	if c.cfg.Referrer {
		if err := c.putDocument(ctx, out); err != nil {
			return err
		}
		if tagged.text, err = c.cfg.Source.Read(ctx, source); err != nil {
			return err
		}
		tagged.desc = plain(source)
		tagged.desc.MediaType = mediaType(source, tagged.text)
	}
	if err := c.cfg.Destination.Tag(ctx, tagged.desc, tagged.text); err != nil {
		return err
	}
	c.report.SourceDigest, c.report.Digest = root.Digest, out.desc.Digest
	c.report.MediaType, c.report.Tagged = out.desc.MediaType, tagged.desc.Digest
	return nil
}

// choose follows indexes to the manifest for the platform, if one was asked for.
func (c *conversion) choose(ctx context.Context, desc ocispec.Descriptor) (ocispec.Descriptor, error) {
	if c.cfg.Platform == "" {
		return desc, nil
	}
	for range maxDepth {
		text, err := c.cfg.Source.Read(ctx, desc)
		if err != nil {
			return desc, err
		}
		n, err := parseNode(desc, text)
		if err != nil || !n.index {
			return desc, err
		}
		usable := slices.DeleteFunc(slices.Clone(n.children), attestation)
		if desc, err = source.Choose(usable, c.cfg.Platform); err != nil {
			return desc, fmt.Errorf("index %s: %w", n.desc.Digest, err)
		}
	}
	return desc, errDepth
}

// keep copies the source to the destination, unless that is where it is.
func (c *conversion) keep(ctx context.Context, desc ocispec.Descriptor) error {
	if r := c.destinationRepository(); r != "" && r == repository(c.cfg.Source) {
		return nil
	}
	return c.copyTree(ctx, desc, nil)
}

// skip is the error of a manifest that is left out of an index.
type skip struct{ error }

// Unwrap returns the reason.
func (s skip) Unwrap() error { return s.error }

// node converts a manifest or index. What the result refers to is at the
// destination, itself it is not yet.
func (c *conversion) node(ctx context.Context, desc ocispec.Descriptor, depth int) (document, error) {
	if depth > maxDepth {
		return document{}, errDepth
	}
	text, err := c.cfg.Source.Read(ctx, desc)
	if err != nil {
		return document{}, err
	}
	n, err := parseNode(desc, text)
	if err != nil {
		return document{}, err
	}
	if !n.index {
		return c.image(ctx, n)
	}
	out := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{}, Annotations: n.annotations,
	}
	for _, child := range n.children {
		d, err := c.child(ctx, child, depth)
		if s := (skip{}); errors.As(err, &s) && ctx.Err() == nil {
			c.report.Skipped = append(c.report.Skipped, Skipped{child.Digest, s.Error()})
			c.cfg.Note(fmt.Sprintf("%s is left out: %v", child.Digest, s))
			continue
		}
		if err != nil {
			return document{}, err
		}
		out.Manifests = append(out.Manifests, d)
	}
	if len(out.Manifests) == 0 {
		return document{}, skip{fmt.Errorf("index %s has nothing that can be converted", desc.Digest)}
	}
	if c.cfg.Referrer {
		out.ArtifactType, out.Subject = ArtifactType, new(plain(n.desc))
	}
	return newDocument(out.MediaType, out)
}

// child converts an entry of an index and returns the new entry.
func (c *conversion) child(ctx context.Context, d ocispec.Descriptor, depth int) (ocispec.Descriptor, error) {
	if attestation(d) {
		return d, skip{errors.New("an attestation, which is about the source only")}
	}
	doc, err := c.node(ctx, d, depth+1)
	if err != nil {
		return d, err
	}
	if err := c.putDocument(ctx, doc); err != nil {
		return d, err
	}
	d.MediaType, d.Digest, d.Size = doc.desc.MediaType, doc.desc.Digest, doc.desc.Size
	d.Data, d.URLs = nil, nil
	return d, nil
}
