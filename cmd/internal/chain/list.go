package chain

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Referrers returns the manifests of an artifact type in the repository of ref
// that refer to the manifest subject. It asks each time.
func (c *Chain) Referrers(ctx context.Context, ref string, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	return c.registry.Referrers(ctx, ref, subject, artifactType)
}
