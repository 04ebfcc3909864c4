package convert

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// image converts a manifest. Config and layers of the result are at the
// destination, itself it is not yet.
func (c *conversion) image(ctx context.Context, n source.Document) (*Image, document, error) {
	if !isConfig(n.Manifest.Config.MediaType) {
		return nil, document{}, skip{fmt.Errorf("manifest %s with a config of type %q is %w", n.Desc.Digest, n.Manifest.Config.MediaType, errNotImage)}
	}
	overlaybd, err := isOverlaybd(n.Manifest.Layers)
	if err != nil {
		return nil, document{}, fmt.Errorf("manifest %s: %w", n.Desc.Digest, err)
	}
	if overlaybd {
		return c.copied(ctx, n)
	}
	text, err := c.cfg.Source.Read(ctx, n.Manifest.Config)
	if err != nil {
		return nil, document{}, fmt.Errorf("reading the config: %w", err)
	}
	config, err := parseConfig(text, len(n.Manifest.Layers))
	if err != nil {
		return nil, document{}, fmt.Errorf("manifest %s: %w", n.Desc.Digest, err)
	}
	if config.OS != "linux" && config.OS != "" {
		return nil, document{}, skip{fmt.Errorf("an image for %s: only those for linux can be converted", platforms.Format(config.Platform))}
	}
	r := &Image{Platform: platforms.Format(config.Platform), SourceManifest: n.Desc.Digest}
	layers := c.layers(n.Manifest.Layers, config.RootFS.DiffIDs)
	for _, l := range layers {
		r.Layers = append(r.Layers, l.report)
	}
	reused, err := c.reuse(ctx, layers)
	if err == nil && reused < len(layers) {
		err = c.convertLayers(ctx, layers, reused)
	}
	if err != nil {
		return r, document{}, err
	}
	doc, err := c.manifest(ctx, n, text, layers)
	r.Manifest = doc.desc.Digest
	return r, doc, err
}

// isOverlaybd reports whether all layers are overlaybd layers already.
func isOverlaybd(descs []ocispec.Descriptor) (bool, error) {
	already := 0
	trace := false
	for i, d := range descs {
		l, err := labels.Parse(d.Annotations)
		if err != nil {
			return false, fmt.Errorf("layer %d (%s): %w", i, d.Digest, err)
		}
		if l.Turbo {
			return false, fmt.Errorf("layer %d (%s) is a TurboOCI layer: convert the image that was made of", i, d.Digest)
		}
		if l.Blob != "" || l.Trace {
			already++
		}
		trace = trace || l.Trace
	}
	switch {
	case already == 0:
		return false, nil
	case already == len(descs):
		return true, nil
	case trace && already == 1:
		return false, errors.New("it has a trace layer, which records reads of another image than the one it would become: remove the trace layer first")
	}
	return false, fmt.Errorf("%d of its %d layers are overlaybd layers already: an image is converted as a whole", already, len(descs))
}

// copied makes an image that needs no converting one of the destination.
func (c *conversion) copied(ctx context.Context, n source.Document) (*Image, document, error) {
	r := &Image{SourceManifest: n.Desc.Digest, Manifest: n.Desc.Digest, Copied: true}
	if c.cfg.Referrer {
		return r, document{}, fmt.Errorf("manifest %s is an overlaybd image already: there is nothing to attach", n.Desc.Digest)
	}
	if n.Desc.Platform != nil {
		r.Platform = platforms.Format(*n.Desc.Platform)
	}
	c.cfg.Note(fmt.Sprintf("%s is an overlaybd image already and is copied as it is", n.Desc.Digest))
	return r, document{plain(n.Desc), n.Text}, c.copyTree(ctx, n.Desc, r)
}

// manifest makes the manifest of the converted image and puts the config.
func (c *conversion) manifest(ctx context.Context, n source.Document, config []byte, layers []*layer) (document, error) {
	out := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Annotations: n.Annotations,
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
		out.ArtifactType, out.Subject = labels.ConvertedArtifact, new(plain(n.Desc))
	}
	return newDocument(out.MediaType, out)
}
