package source

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// referrerLister is the optional ability of a Registry to list the manifests
// that refer to another one.
type referrerLister interface {
	Referrers(ctx context.Context, ref string, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error)
}

// Referrers returns the manifests of an artifact type beside the image that
// refer to the manifest subject. Their descriptors have their annotations.
func (c *Content) Referrers(ctx context.Context, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	return referrers(ctx, c.store, subject, artifactType)
}

// Referrers returns the manifests of an artifact type that refer to the image's
// manifest: none if it has no manifest.
func (i *Image) Referrers(ctx context.Context, artifactType string) ([]ocispec.Descriptor, error) {
	if i.store == nil {
		return nil, nil
	}
	return referrers(ctx, i.store, i.Manifest.Digest, artifactType)
}

// Read returns a document beside the image's manifest, whose digest was verified.
// There has to be a manifest.
func (i *Image) Read(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	return i.store.read(ctx, desc)
}

func referrers(ctx context.Context, s store, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	switch s := s.(type) {
	case remote:
		if l, ok := s.registry.(referrerLister); ok {
			return l.Referrers(ctx, s.ref, subject, artifactType)
		}
		return nil, nil
	case layout:
		return s.referrers(ctx, subject, artifactType)
	}
	return nil, nil
}

// referrers finds the entries of the index that refer to subject. An entry that
// says its type and can not be read is an error.
func (l layout) referrers(ctx context.Context, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	index, err := l.index()
	if err != nil {
		return nil, err
	}
	var all []ocispec.Descriptor
	for _, d := range index {
		if d.ArtifactType != artifactType {
			continue
		}
		text, err := l.read(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("reading referrer %s: %w", d.Digest, err)
		}
		var m struct {
			Subject *ocispec.Descriptor `json:"subject"`
		}
		if err := json.Unmarshal(text, &m); err != nil {
			return nil, fmt.Errorf("parsing referrer %s: %w", d.Digest, err)
		}
		if m.Subject != nil && m.Subject.Digest == subject {
			all = append(all, d)
		}
	}
	return all, nil
}
