package push

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
)

// tree is what an image consists of, as far as it is here.
type tree struct {
	documents []source.Document // each behind those it names
	blobs     []item            // each digest once
	missing   []entry
}

// item is a config or layer, and the repositories that the manifests with it came from.
type item struct {
	ocispec.Descriptor
	config  bool
	sources []string
}

// entry is a manifest that an index names.
type entry struct {
	ocispec.Descriptor
	index digest.Digest
}

// walk collects what desc names.
func (p *push) walk(ctx context.Context, t *tree, desc ocispec.Descriptor, depth int) error {
	if depth > source.MaxDepth {
		return source.ErrDepth
	}
	doc, err := p.document(ctx, desc)
	if err != nil {
		return err
	}
	for _, child := range doc.Children {
		err := p.walk(ctx, t, child, depth+1)
		if errdefs.IsNotFound(err) {
			t.missing = append(t.missing, entry{child, desc.Digest})
			continue
		}
		if err != nil {
			return err
		}
	}
	known, err := p.origins(ctx, doc)
	if err != nil {
		return err
	}
	for i, d := range doc.Blobs() {
		if images.IsNonDistributable(d.MediaType) && !p.cfg.NonDistributable {
			p.note("%s must not be distributed, says its media type, and is left out", d.Digest)
			continue
		}
		// Each manifest that names it may know of another place to have it from.
		if at, seen := p.seen[d.Digest]; seen {
			t.blobs[at].sources = p.ordered(append(t.blobs[at].sources, known...))
			continue
		}
		p.seen[d.Digest] = len(t.blobs)
		t.blobs = append(t.blobs, item{d, i == 0, known})
	}
	t.documents = append(t.documents, doc)
	return nil
}

// document reads a manifest or index from the content store.
func (p *push) document(ctx context.Context, desc ocispec.Descriptor) (source.Document, error) {
	text, err := content.ReadBlob(ctx, p.cfg.Content, desc)
	if err != nil {
		return source.Document{}, fmt.Errorf("reading %s: %w", desc.Digest, err)
	}
	return source.ParseDocument(desc, text)
}

// choose follows indexes to the manifest for the platform.
func (p *push) choose(ctx context.Context, desc ocispec.Descriptor) (ocispec.Descriptor, error) {
	if p.cfg.Platform == "" {
		return desc, nil
	}
	doc, err := source.ChooseManifest(ctx, desc, p.cfg.Platform, p.document)
	return doc.Desc, err
}

// origins returns the repositories that the labels of a manifest and its config
// name, those of the destination's registry first.
func (p *push) origins(ctx context.Context, doc source.Document) ([]string, error) {
	if doc.Index {
		return nil, nil
	}
	var all []string
	for _, d := range []digest.Digest{doc.Desc.Digest, doc.Manifest.Config.Digest} {
		found, err := p.labelled(ctx, d)
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, err
		}
		all = append(all, found...)
	}
	if p.own != "" {
		all = append(all, p.own)
	}
	return p.ordered(all), nil
}

// absent reports manifests that are neither here nor at the destination.
func (p *push) absent(ctx context.Context, missing []entry) error {
	var errs []error
	for _, m := range missing {
		there, err := p.cfg.Registry.Exists(ctx, p.cfg.Ref, m.Descriptor)
		if err != nil {
			return err
		}
		if there {
			continue
		}
		name := "an unnamed platform"
		if m.Platform != nil {
			name = platforms.Format(*m.Platform)
		}
		errs = append(errs, fmt.Errorf("index %s names manifest %s for %s, which is neither here nor at the destination", m.index, m.Digest, name))
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%w (pull it for that platform first, or push one platform alone with --platform)", errors.Join(errs...))
}

// labelled returns the repositories that content was pulled from.
func (p *push) labelled(ctx context.Context, d digest.Digest) ([]string, error) {
	info, err := p.cfg.Content.Info(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("looking at %s: %w", d, err)
	}
	var all []string
	for key, value := range info.Labels {
		host, ok := strings.CutPrefix(key, labels.LabelDistributionSource+".")
		if !ok {
			continue
		}
		for repo := range strings.SplitSeq(value, ",") {
			if repo != "" {
				all = append(all, host+"/"+repo)
			}
		}
	}
	return all, nil
}
