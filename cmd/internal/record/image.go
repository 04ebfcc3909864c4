package record

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/traces"
)

// image is the image that is recorded, for this host's platform.
type image struct {
	containerd.Image
	*documents
	manifest ocispec.Descriptor
	sources  map[string]string // labels about where it was pulled from
}

// openImage reads an image of containerd.
func openImage(ctx context.Context, client *containerd.Client, name string) (*image, error) {
	img, err := client.GetImage(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("there is no image %s here: pull it with ctr rpull first: %w", name, err)
	} else if err != nil {
		return nil, err
	}
	i := &image{Image: img}
	cs := client.ContentStore()
	doc, err := source.ChooseManifest(ctx, img.Target(), "", func(ctx context.Context, desc ocispec.Descriptor) (source.Document, error) {
		text, err := content.ReadBlob(ctx, cs, desc)
		if err != nil {
			return source.Document{}, fmt.Errorf("reading %s: %w", desc.Digest, err)
		}
		return source.ParseDocument(desc, text)
	})
	if err != nil {
		return nil, err
	}
	i.manifest = doc.Desc
	config := doc.Manifest.Config
	configText, err := content.ReadBlob(ctx, cs, config)
	if err != nil {
		return nil, fmt.Errorf("reading the config: %w", err)
	}
	if i.documents, err = parseDocuments(doc.Text, configText); err != nil {
		return nil, err
	}
	i.sources, err = sources(ctx, cs, name, i.manifest.Digest, config.Digest)
	return i, err
}

// sources returns the labels that tell where an image was pulled from, which push
// goes by. Where
// nobody noted it, its name is all there is.
func sources(ctx context.Context, cs content.Store, name string, digests ...digest.Digest) (map[string]string, error) {
	found := map[string]string{}
	for _, d := range digests {
		info, err := cs.Info(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("looking at %s: %w", d, err)
		}
		for k, v := range info.Labels {
			if strings.HasPrefix(k, labels.LabelDistributionSource+".") {
				found[k] = v
			}
		}
	}
	if named, err := reference.ParseNormalizedNamed(name); len(found) == 0 && err == nil {
		found[labels.LabelDistributionSource+"."+reference.Domain(named)] = reference.Path(named)
	}
	return found, nil
}

// create writes config and manifest of the image with a trace layer, which is in
// the content store, and returns the descriptor of the manifest.
func (r *recording) create(ctx context.Context, layer ocispec.Descriptor) (ocispec.Descriptor, traces.Added, error) {
	var desc ocispec.Descriptor
	added, err := traces.Add(r.old.documents.manifest, r.old.config, layer, time.Now().UTC().Truncate(time.Second))
	if err != nil {
		return desc, added, err
	}
	chain := identity.ChainID(slices.Clone(added.DiffIDs))
	keep := map[string]string{"containerd.io/gc.ref.snapshot." + r.cfg.Snapshotter: chain.String()}
	maps.Copy(keep, r.old.sources)
	config := added.Parsed.Config
	if err := r.write(ctx, config, added.Config, keep); err != nil {
		return desc, added, fmt.Errorf("writing the config: %w", err)
	}
	desc = ocispec.Descriptor{MediaType: r.old.manifest.MediaType, Digest: digest.FromBytes(added.Manifest), Size: int64(len(added.Manifest))}
	keep = map[string]string{"containerd.io/gc.ref.content.config": config.Digest.String()}
	for i, l := range added.Parsed.Layers {
		keep[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = l.Digest.String()
	}
	maps.Copy(keep, r.old.sources)
	if err := r.write(ctx, desc, added.Manifest, keep); err != nil {
		return desc, added, fmt.Errorf("writing the manifest: %w", err)
	}
	return desc, added, nil
}

func (r *recording) write(ctx context.Context, desc ocispec.Descriptor, text []byte, keep map[string]string) error {
	ref := "record-trace-" + desc.Digest.String()
	return content.WriteBlob(ctx, r.cfg.Client.ContentStore(), ref, strings.NewReader(string(text)), desc, content.WithLabels(keep))
}
