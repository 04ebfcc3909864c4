package commit

import (
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/imagestore"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// added is a layer that lies on an image.
type added struct {
	desc   ocispec.Descriptor
	diffID digest.Digest
	// command is what the container ran.
	command string
	now     time.Time
}

// config returns the config of the base with the layer on top.
func (c Config) config(base *imagestore.Image, l added) ([]byte, error) {
	o, err := imagestore.ParseObject(base.Config)
	if err != nil {
		return nil, err
	}
	var history []any // entries may have fields that nobody knows
	author := ""
	if err := o.Get("history", &history); err != nil {
		return nil, err
	}
	if err := o.Get("author", &author); err != nil {
		return nil, err
	}
	if c.Author != "" {
		author = c.Author
		if err := o.Set("author", author); err != nil {
			return nil, err
		}
	}
	// Where an image has no history, the one entry would be taken for that of its
	// bottom layer.
	if len(history) > 0 {
		entry := ocispec.History{Created: &l.now, CreatedBy: l.command, Author: author, Comment: c.Message}
		if err := o.Set("history", append(history, entry)); err != nil {
			return nil, err
		}
	}
	if err := o.Set("created", l.now); err != nil {
		return nil, err
	}
	ids := append(slices.Clone(base.DiffIDs), l.diffID)
	if err := o.Set("rootfs", ocispec.RootFS{Type: "layers", DiffIDs: ids}); err != nil {
		return nil, err
	}
	if err := c.change(o); err != nil {
		return nil, err
	}
	return imagestore.Encode(o)
}

// change applies the changes to a config.
func (c Config) change(o imagestore.Object) error {
	if len(c.Changes) == 0 {
		return nil
	}
	run := imagestore.Object{}
	if err := o.Get("config", &run); err != nil {
		return err
	}
	if run == nil { // null
		run = imagestore.Object{}
	}
	for _, change := range c.Changes {
		if err := change.Apply(run); err != nil {
			return err
		}
	}
	return o.Set("config", run)
}

// manifest returns the manifest of the base with the layer on top. It is no referrer
// of what the base refers to: whoever looks for a converted image would find both.
func manifest(base *imagestore.Image, l added) ocispec.Manifest {
	return ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: base.MediaType,
		Layers:      append(slices.Clone(base.Manifest.Layers), mediaTypeFor(base.MediaType, l.desc)),
		Annotations: base.Manifest.Annotations,
	}
}

// dockerTypes are docker's names of what the diff service makes.
var dockerTypes = map[string]string{
	ocispec.MediaTypeImageLayerGzip: images.MediaTypeDockerSchema2LayerGzip,
	ocispec.MediaTypeImageLayerZstd: images.MediaTypeDockerSchema2LayerZstd,
}

// mediaTypeFor returns an archive's descriptor as manifests of a media type name it.
// Overlaybd layers are called the same everywhere.
func mediaTypeFor(manifest string, desc ocispec.Descriptor) ocispec.Descriptor {
	docker := dockerTypes[desc.MediaType]
	if manifest == images.MediaTypeDockerSchema2Manifest && docker != "" && !isOverlaybd(desc) {
		desc.MediaType = docker
	}
	return desc
}

// isOverlaybd reports whether a layer is one of overlaybd.
func isOverlaybd(desc ocispec.Descriptor) bool { return desc.Annotations[labels.BlobDigest] != "" }
