package convert

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// document is a manifest, index or config with its descriptor.
type document struct {
	desc ocispec.Descriptor
	text []byte
}

// newDocument encodes v, which decides the text: no spaces, keys in the order
// of the type or sorted.
func newDocument(mediaType string, v any) (document, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return document{}, err
	}
	text := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	return document{desc, text}, nil
}

// imageConfig is what converting needs of a config. The rest stays as it is.
type imageConfig struct {
	ocispec.Platform
	RootFS ocispec.RootFS `json:"rootfs"`
}

// errNotImage is in the chain of errors of manifests of artifacts.
var errNotImage = errors.New("not a container image")

// isConfig reports whether a media type is that of an image's config.
func isConfig(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageConfig || mediaType == images.MediaTypeDockerSchema2Config
}

// parseConfig parses a config and checks that it goes with a manifest.
func parseConfig(text []byte, layers int) (imageConfig, error) {
	var c imageConfig
	if err := json.Unmarshal(text, &c); err != nil {
		return c, fmt.Errorf("parsing the config: %w", err)
	}
	if len(c.RootFS.DiffIDs) != layers {
		return c, fmt.Errorf("the config has %d diff IDs for %d layers", len(c.RootFS.DiffIDs), layers)
	}
	if layers == 0 {
		return c, errors.New("the image has no layers")
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := d.Validate(); err != nil {
			return c, fmt.Errorf("diff ID %q of the config: %w", d, err)
		}
	}
	return c, nil
}

// withDiffIDs returns the config with other diff IDs. Everything else, known
// or not, stays; keys come sorted.
func withDiffIDs(text []byte, ids []digest.Digest) (document, error) {
	var config map[string]json.RawMessage
	if err := json.Unmarshal(text, &config); err != nil {
		return document{}, fmt.Errorf("parsing the config: %w", err)
	}
	rootfs, err := json.Marshal(ocispec.RootFS{Type: "layers", DiffIDs: ids})
	if err != nil {
		return document{}, err
	}
	// Go's parser, which most readers use, takes other cases of a key for it.
	maps.DeleteFunc(config, func(k string, _ json.RawMessage) bool { return strings.EqualFold(k, "rootfs") })
	config["rootfs"] = rootfs
	return newDocument(ocispec.MediaTypeImageConfig, config)
}
