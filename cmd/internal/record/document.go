package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// documents are manifest and config of an image, without a trace.
type documents struct {
	manifest, config []byte // the texts

	parsed  ocispec.Manifest
	diffIDs []digest.Digest // one for each layer
	// replaced says that trace layers were taken off.
	replaced bool
}

// parseDocuments parses what is left of an image without a trace.
func parseDocuments(manifest, config []byte) (*documents, error) {
	dropped, err := traces.Drop(manifest, config)
	if err != nil {
		return nil, fmt.Errorf("taking off the trace: %w", err)
	}
	d := &documents{manifest: dropped.Manifest, config: dropped.Config, replaced: len(dropped.Layers) > 0}
	if err := json.Unmarshal(d.manifest, &d.parsed); err != nil {
		return nil, fmt.Errorf("parsing the manifest: %w", err)
	}
	var image struct {
		RootFS ocispec.RootFS `json:"rootfs"`
	}
	if err := json.Unmarshal(d.config, &image); err != nil {
		return nil, fmt.Errorf("parsing the config: %w", err)
	}
	d.diffIDs = image.RootFS.DiffIDs
	return d, d.check()
}

// check reports what is no image that can have a trace.
func (d *documents) check() error {
	if len(d.parsed.Layers) != len(d.diffIDs) {
		return fmt.Errorf("the manifest has %d layers, the config %d diff IDs", len(d.parsed.Layers), len(d.diffIDs))
	}
	if len(d.diffIDs) == 0 {
		return errors.New("the image has no layers")
	}
	for i, l := range d.parsed.Layers {
		switch {
		case !images.IsLayerType(l.MediaType):
			return fmt.Errorf("layer %d is a %q", i, l.MediaType)
		case l.Annotations[labels.BlobDigest] == "":
			return fmt.Errorf("layer %d (%s) is no overlaybd layer, so nothing of it is read lazily: convert the image first, see reprise convert", i, l.Digest)
		case d.diffIDs[i].Validate() != nil:
			return fmt.Errorf("diff ID %q of layer %d is no digest", d.diffIDs[i], i)
		}
	}
	return nil
}

// chain returns the chain IDs of the layers, bottom first.
func (d *documents) chain() []digest.Digest {
	return identity.ChainIDs(slices.Clone(d.diffIDs))
}

// fsType returns the label about the file system of the topmost layer.
func (d *documents) fsType() string {
	return d.parsed.Layers[len(d.parsed.Layers)-1].Annotations[labels.FSType]
}
