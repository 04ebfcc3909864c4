// Package imagestore reads images of containerd's own stores, and makes images
// there.
//
// An image is taken for what it is without its trace layers: those are about one
// image, and belong on top of that only, so whatever is made of an image has none.
package imagestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/traces"
)

// Image is the manifest of an image for this host's platform.
type Image struct {
	Name string
	// Config is the text of the config, Manifest what is in the manifest: both
	// without trace layers.
	Config   []byte
	Manifest ocispec.Manifest
	// MediaType is what the manifest says it is.
	MediaType string
	// DiffIDs has one for each layer of Manifest.
	DiffIDs []digest.Digest
	// Dropped are the trace layers that are not in Manifest, and Stored the diff
	// IDs as they are in the store, with theirs.
	Dropped []ocispec.Descriptor
	Stored  []digest.Digest
	// Origins are the labels that tell where the image was pulled from, which
	// ctr push goes by.
	Origins map[string]string
}

// Open reads an image of containerd.
func Open(ctx context.Context, client *containerd.Client, name string) (*Image, error) {
	img, err := client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("there is no image %s here, see ctr images ls: %w", name, err)
	} else if err != nil {
		return nil, err
	}
	cs := client.ContentStore()
	doc, err := source.ChooseManifest(ctx, img.Target, "", func(ctx context.Context, desc ocispec.Descriptor) (source.Document, error) {
		text, err := content.ReadBlob(ctx, cs, desc)
		if err != nil {
			return source.Document{}, fmt.Errorf("reading %s: %w", desc.Digest, err)
		}
		return source.ParseDocument(desc, text)
	})
	if err != nil {
		return nil, fmt.Errorf("reading image %s: %w", name, err)
	}
	config, err := content.ReadBlob(ctx, cs, doc.Manifest.Config)
	if err != nil {
		return nil, fmt.Errorf("reading the config of image %s: %w", name, err)
	}
	i, err := parse(doc, config)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	i.Name = name
	i.Origins, err = origins(ctx, cs, name, doc.Desc.Digest, doc.Manifest.Config.Digest)
	return i, err
}

// parse takes an image apart.
func parse(doc source.Document, config []byte) (*Image, error) {
	if !images.IsConfigType(doc.Manifest.Config.MediaType) {
		return nil, fmt.Errorf("its config is of type %q: it is no container image", doc.Manifest.Config.MediaType)
	}
	dropped, err := traces.Drop(doc.Text, config)
	if err != nil {
		return nil, fmt.Errorf("taking off the trace: %w", err)
	}
	i := &Image{Config: dropped.Config, MediaType: doc.Desc.MediaType, Dropped: dropped.Layers}
	if err := json.Unmarshal(dropped.Manifest, &i.Manifest); err != nil {
		return nil, fmt.Errorf("parsing the manifest: %w", err)
	}
	if i.DiffIDs, err = diffIDs(dropped.Config); err != nil {
		return nil, err
	}
	if i.Stored, err = diffIDs(config); err != nil {
		return nil, err
	}
	return i, i.check()
}

func diffIDs(config []byte) ([]digest.Digest, error) {
	var c struct {
		RootFS ocispec.RootFS `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("parsing the config: %w", err)
	}
	return c.RootFS.DiffIDs, nil
}

// check reports what is no image of layers.
func (i *Image) check() error {
	if len(i.Manifest.Layers) != len(i.DiffIDs) {
		return fmt.Errorf("the manifest has %d layers, the config %d diff IDs", len(i.Manifest.Layers), len(i.DiffIDs))
	}
	if len(i.DiffIDs) == 0 {
		return errors.New("it has no layers")
	}
	for n, l := range i.Manifest.Layers {
		if !images.IsLayerType(l.MediaType) {
			return fmt.Errorf("layer %d is a %q", n, l.MediaType)
		}
		if err := i.DiffIDs[n].Validate(); err != nil {
			return fmt.Errorf("diff ID %q of layer %d: %w", i.DiffIDs[n], n, err)
		}
	}
	return nil
}

// Chain returns the chain IDs of the layers, bottom first.
func (i *Image) Chain() []digest.Digest { return identity.ChainIDs(slices.Clone(i.DiffIDs)) }

// origins returns the labels that tell where an image was pulled from. Where
// nobody noted it, its name is all there is.
func origins(ctx context.Context, cs content.Store, name string, digests ...digest.Digest) (map[string]string, error) {
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
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return found, nil // a name that is no reference tells nothing
	}
	domain, repository := reference.Domain(named), reference.Path(named)
	if len(found) == 0 || losesPort(found, domain, repository) {
		found[labels.LabelDistributionSource+"."+domain] = repository
	}
	return found, nil
}

// losesPort reports whether the labels name a repository, but for the port of its
// registry: containerd leaves that out.
func losesPort(found map[string]string, domain, repository string) bool {
	host, _, err := net.SplitHostPort(domain)
	if err != nil {
		return false
	}
	known := strings.Split(found[labels.LabelDistributionSource+"."+host], ",")
	return slices.Contains(known, repository)
}
