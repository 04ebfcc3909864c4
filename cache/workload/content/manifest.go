package content

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Annotations of the manifests made here.
const (
	// annotationURI is the URI of the trace that a manifest stands for. It also makes
	// manifests of the same layers different from each other.
	annotationURI = "dev.reprise.replay.uri"
	// annotationPadding makes a manifest as long as the recorded one.
	annotationPadding = "dev.reprise.replay.padding"
)

// LayerType is the media type of layers. What is in them is no archive: they are for
// who fetches images, not for who unpacks them.
const LayerType = ocispec.MediaTypeImageLayer

// Image is a manifest and the configuration it names.
type Image struct {
	Manifest []byte // of the type ocispec.MediaTypeImageManifest
	Config   []byte
}

// Image returns the image that stands for a manifest of the trace. It lists the
// layers given, and is size bytes long, unless that is shorter than it can be.
func (m *Maker) Image(uri string, size int64, layers []ocispec.Descriptor) (Image, error) {
	config := ocispec.Image{Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"}}
	config.RootFS.Type = "layers"
	config.RootFS.DiffIDs = []digest.Digest{}
	for _, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.Digest)
	}
	var out Image
	var err error
	if out.Config, err = json.Marshal(config); err != nil {
		return out, fmt.Errorf("making the configuration for %s: %w", uri, err)
	}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(out.Config), Size: int64(len(out.Config)),
		},
		Layers:      layers,
		Annotations: map[string]string{annotationURI: uri},
	}
	if manifest.Layers == nil {
		manifest.Layers = []ocispec.Descriptor{}
	}
	if out.Manifest, err = json.Marshal(manifest); err != nil {
		return out, fmt.Errorf("making the manifest for %s: %w", uri, err)
	}
	// What the annotation costs beside its value, which needs no escapes.
	missing := size - int64(len(out.Manifest)) - int64(len(`,"":""`)+len(annotationPadding))
	if missing < 0 || size > maxManifest {
		return out, nil
	}
	manifest.Annotations[annotationPadding] = m.padding(uri, missing)
	out.Manifest, err = json.Marshal(manifest)
	return out, err
}

// maxManifest is how long registries let manifests be, in bytes. A recorded one that
// is longer is not matched.
const maxManifest = 4 << 20

// padding returns n characters that are as good as random.
func (m *Maker) padding(uri string, n int64) string {
	raw := make([]byte, n/2+1)
	// A body of that size has as many bytes.
	_, _ = io.ReadFull(m.Body(uri, int64(len(raw))), raw)
	return hex.EncodeToString(raw)[:n]
}
