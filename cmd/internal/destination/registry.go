package destination

import (
	"bytes"
	"context"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
)

// Registry is a tag of a repository as a Destination.
type Registry struct {
	client *registry.Client
	chain  *chain.Chain
	tag    string // a complete reference
	repo   string
}

// NewRegistry returns the destination ref. Blobs are read back through chain.
func NewRegistry(client *registry.Client, chain *chain.Chain, ref string) (*Registry, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, err
	}
	return &Registry{client, chain, ref, named.Name()}, nil
}

// Exists implements Store.
func (r *Registry) Exists(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	return r.client.Exists(ctx, r.repo, desc)
}

// Put implements Store.
func (r *Registry) Put(ctx context.Context, desc ocispec.Descriptor, c Content) error {
	return r.client.Push(ctx, r.repo, desc, c)
}

// PutReferrer implements Replacer.
func (r *Registry) PutReferrer(ctx context.Context, desc ocispec.Descriptor, c Content, replaces func(ocispec.Descriptor) bool) error {
	return r.client.PushReferrer(ctx, r.repo, desc, c, replaces)
}

// Open implements Store.
func (r *Registry) Open(desc ocispec.Descriptor) (blob.Blob, error) {
	return r.chain.Open(r.repo, desc)
}

// Tag implements Destination.
func (r *Registry) Tag(ctx context.Context, desc ocispec.Descriptor, text []byte) error {
	return r.client.Push(ctx, r.tag, desc, bytes.NewReader(text))
}

// Repository implements Mounter.
func (r *Registry) Repository() string { return r.repo }

// Mount implements Mounter.
func (r *Registry) Mount(ctx context.Context, desc ocispec.Descriptor, from string) (bool, error) {
	return r.client.Mount(ctx, r.repo, desc, from)
}

// Close implements Destination.
func (r *Registry) Close() error { return nil }
