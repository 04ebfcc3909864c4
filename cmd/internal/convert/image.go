package convert

import (
	"context"
	"fmt"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/cmd/internal/transfer"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// original is a manifest of the source, less its trace layers.
type original struct {
	source.Document
	// config is the text of the config, nil if it is the source's own and was
	// not read.
	config []byte
	// dropped are the trace layers that are not in the manifest any more.
	dropped []ocispec.Descriptor
	// base is how many layers, from the bottom on, are overlaybd layers
	// already.
	base int
	// subject is the manifest as it is in the source.
	subject ocispec.Descriptor
}

// image converts a manifest. Config and layers of the result are at the
// destination, itself it is not yet.
func (c *conversion) image(ctx context.Context, n source.Document) (*Image, document, error) {
	if !isConfig(n.Manifest.Config.MediaType) {
		return nil, document{}, skip{fmt.Errorf("manifest %s with a config of type %q is %w", n.Desc.Digest, n.Manifest.Config.MediaType, errNotImage)}
	}
	o, err := c.withoutTrace(ctx, n)
	if err != nil {
		return nil, document{}, fmt.Errorf("dropping the trace layer of manifest %s: %w", n.Desc.Digest, err)
	}
	if o.base, err = c.overlaybd(o.Manifest.Layers); err != nil {
		return nil, document{}, fmt.Errorf("manifest %s: %w", n.Desc.Digest, err)
	}
	r := &Image{SourceManifest: n.Desc.Digest}
	for _, d := range o.dropped {
		r.Dropped = append(r.Dropped, d.Digest)
		c.cfg.Note(fmt.Sprintf("%s is dropped: a trace layer is about the image that it was recorded with, and belongs on top of it only", d.Digest))
	}
	if o.base > 0 && o.base == len(o.Manifest.Layers) {
		doc, err := c.copied(ctx, o, r)
		return r, doc, err
	}
	doc, err := c.converted(ctx, o, r)
	return r, doc, err
}

// withoutTrace returns the manifest without its trace layers.
func (c *conversion) withoutTrace(ctx context.Context, n source.Document) (original, error) {
	o := original{Document: n, subject: transfer.Plain(n.Desc)}
	if len(traces.Layers(n.Manifest.Layers)) == 0 {
		return o, nil
	}
	config, err := c.cfg.Source.Read(ctx, n.Manifest.Config)
	if err != nil {
		return o, fmt.Errorf("reading the config: %w", err)
	}
	d, err := traces.Drop(n.Text, config)
	if err != nil {
		return o, err
	}
	desc := n.Desc
	desc.Digest, desc.Size, desc.Data = digest.FromBytes(d.Manifest), int64(len(d.Manifest)), nil
	o.config, o.dropped = d.Config, d.Layers
	o.Document, err = source.ParseDocument(desc, d.Manifest)
	return o, err
}

// converted converts the layers of an image.
func (c *conversion) converted(ctx context.Context, o original, r *Image) (document, error) {
	text := o.config
	if text == nil {
		var err error
		if text, err = c.cfg.Source.Read(ctx, o.Manifest.Config); err != nil {
			return document{}, fmt.Errorf("reading the config: %w", err)
		}
	}
	config, err := parseConfig(text, len(o.Manifest.Layers))
	if err != nil {
		return document{}, fmt.Errorf("manifest %s: %w", o.subject.Digest, err)
	}
	if config.OS != "linux" && config.OS != "" {
		return document{}, skip{fmt.Errorf("an image for %s: only those for linux can be converted", platforms.Format(config.Platform))}
	}
	r.Platform = platforms.Format(config.Platform)
	layers := c.layers(o.Manifest.Layers, config.RootFS.DiffIDs)
	for _, l := range layers {
		r.Layers = append(r.Layers, l.report)
	}
	if err := c.build(layers[:o.base], o.Manifest.Layers); err != nil {
		return document{}, fmt.Errorf("manifest %s: %w", o.subject.Digest, err)
	}
	reused, err := c.reuse(ctx, layers)
	if err == nil && reused < len(layers) {
		err = c.convertLayers(ctx, layers, reused)
	}
	if err != nil {
		return document{}, err
	}
	doc, err := c.manifest(ctx, o, text, layers)
	r.Manifest = doc.desc.Digest
	return doc, err
}

// copied makes an image that needs no converting one of the destination.
func (c *conversion) copied(ctx context.Context, o original, r *Image) (document, error) {
	if c.cfg.Referrer {
		return document{}, fmt.Errorf("manifest %s is an overlaybd image already: there is nothing to attach", o.subject.Digest)
	}
	if o.Desc.Platform != nil {
		r.Platform = platforms.Format(*o.Desc.Platform)
	}
	r.Manifest, r.Copied = o.Desc.Digest, true
	how := "as it is"
	if o.config != nil {
		how = "without its trace layer"
	}
	c.cfg.Note(fmt.Sprintf("%s is an overlaybd image already and is copied %s", o.subject.Digest, how))
	if err := c.copyBlobs(ctx, o, r); err != nil {
		return document{}, err
	}
	return document{transfer.Plain(o.Desc), o.Text}, nil
}

// manifest makes the manifest of the converted image and puts the config.
func (c *conversion) manifest(ctx context.Context, o original, config []byte, layers []*layer) (document, error) {
	out := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Annotations: o.Annotations,
	}
	var ids []digest.Digest
	for _, l := range layers {
		// The blob is a tar archive that is not compressed as a whole.
		ids = append(ids, l.out.Digest)
		out.Layers = append(out.Layers, l.out)
	}
	converted, err := withDiffIDs(config, ids)
	if err != nil {
		return document{}, err
	}
	if err := c.putDocument(ctx, converted); err != nil {
		return document{}, err
	}
	out.Config = converted.desc
	if c.cfg.Referrer {
		out.ArtifactType, out.Subject = labels.ConvertedArtifact, new(o.subject)
	}
	return newDocument(out.MediaType, out)
}
