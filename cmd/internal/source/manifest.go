package source

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ReadDocument reads what a descriptor is of: a manifest or an index.
type ReadDocument func(ctx context.Context, desc ocispec.Descriptor) (Document, error)

// ChooseManifest returns the manifest of an image for a platform, such as
// "linux/arm64", this host's if it is empty: root itself, or what the indexes name
// that it is followed through, MaxDepth of them at most. It is not compared with
// the platform if no index is there to say one, see CheckPlatform.
func ChooseManifest(ctx context.Context, root ocispec.Descriptor, name string, read ReadDocument) (Document, error) {
	match, err := platform(name)
	if err != nil {
		return Document{}, err
	}
	return chooseManifest(ctx, root, match, read)
}

func chooseManifest(ctx context.Context, desc ocispec.Descriptor, match platforms.MatchComparer, read ReadDocument) (Document, error) {
	for range MaxDepth + 1 {
		doc, err := read(ctx, desc)
		if err != nil {
			return doc, err
		}
		if !doc.Index {
			return doc, nil
		}
		images := slices.DeleteFunc(slices.Clone(doc.Children), func(d ocispec.Descriptor) bool {
			_, is := Attestation(d)
			return is
		})
		if desc, err = choose(images, match); err != nil {
			return Document{}, fmt.Errorf("index %s: %w", doc.Desc.Digest, err)
		}
	}
	return Document{}, ErrDepth
}

// Attestation reports whether an entry of an index is what BuildKit says about
// another one, and about which.
func Attestation(d ocispec.Descriptor) (about digest.Digest, is bool) {
	if d.Annotations["vnd.docker.reference.type"] != "attestation-manifest" {
		return "", false
	}
	return digest.Digest(d.Annotations["vnd.docker.reference.digest"]), true
}
