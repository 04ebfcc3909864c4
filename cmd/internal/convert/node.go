package convert

import (
	"encoding/json"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// node is a manifest or an index of the source.
type node struct {
	desc     ocispec.Descriptor
	text     []byte
	index    bool
	manifest ocispec.Manifest
	// children are the manifests of an index, blobs config and layers of a
	// manifest.
	children, blobs []ocispec.Descriptor
	annotations     map[string]string
}

// parseNode parses a document. Its media type is what it says it is.
func parseNode(desc ocispec.Descriptor, text []byte) (node, error) {
	mt := mediaType(desc, text)
	n := node{desc: desc, text: text}
	switch {
	case images.IsIndexType(mt):
		var index ocispec.Index
		if err := json.Unmarshal(text, &index); err != nil {
			return n, fmt.Errorf("parsing index %s: %w", desc.Digest, err)
		}
		n.index, n.children, n.annotations = true, index.Manifests, index.Annotations
	case images.IsManifestType(mt):
		if err := json.Unmarshal(text, &n.manifest); err != nil {
			return n, fmt.Errorf("parsing manifest %s: %w", desc.Digest, err)
		}
		n.blobs = append([]ocispec.Descriptor{n.manifest.Config}, n.manifest.Layers...)
		n.annotations = n.manifest.Annotations
	default:
		return n, fmt.Errorf("%s is no manifest and no index but %q, which is not supported", desc.Digest, mt)
	}
	for _, d := range append(n.children, n.blobs...) {
		if err := d.Digest.Validate(); err != nil {
			return n, fmt.Errorf("%s: digest %q: %w", desc.Digest, d.Digest, err)
		}
		if d.Size < 0 {
			return n, fmt.Errorf("%s: size %d of %s is negative", desc.Digest, d.Size, d.Digest)
		}
	}
	n.desc.MediaType = mt
	return n, nil
}

// attestation reports whether an entry of an index is what BuildKit says about
// another one, which is of no use for a converted image.
func attestation(d ocispec.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] == "attestation-manifest"
}
