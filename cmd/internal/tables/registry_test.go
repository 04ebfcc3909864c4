package tables_test

import (
	"os"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/tables"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/remote/registry/registrytest"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// In a registry, a node that looks for tables finds them and needs no other
// word for the bytes that it reads.
func TestRegistry(t *testing.T) {
	ctx, ref := t.Context(), registrytest.Start(t, "")+"/app:1"
	client, err := registry.New(registry.Config{DockerConfig: t.TempDir() + "/none.json"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	l := layout{t, t.TempDir()}
	layer := l.layer("L0.lz4-4k.tar", nil)
	image := l.image(layer)
	config := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: ocispec.DescriptorEmptyJSON.Digest, Size: 2}
	for _, d := range []ocispec.Descriptor{layer, config, image} {
		f, err := os.Open(l.dir + "/blobs/sha256/" + d.Digest.Encoded())
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Push(ctx, ref, d, f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	plain := chain.New(client, chain.Config{Retry: blob.RetryConfig{Attempts: 2}})
	c, err := source.OpenContent(ctx, ref, source.Config{Registry: plain})
	if err != nil {
		t.Fatal(err)
	}
	to, err := destination.NewRegistry(client, plain, ref)
	if err != nil {
		t.Fatal(err)
	}
	strict := chain.New(client, chain.Config{Retry: blob.RetryConfig{Attempts: 2}, Verify: chain.VerifyRequired, VerifyReferrers: true})
	layer.Annotations[labels.ManifestDigest] = image.Digest.String()
	read := func() error {
		b, err := strict.Open(ref, layer)
		if err == nil {
			err = blob.ReadFull(ctx, b, make([]byte, b.Size()), 0)
		}
		return err
	}
	r, err := tables.Attach(ctx, tables.Config{Image: c, Store: to})
	if err != nil || len(r.Manifests) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := read(); err != nil {
		t.Error(err)
	}
	if d, err := client.Resolve(ctx, ref); err != nil || d.Digest != image.Digest {
		t.Errorf("the tag is %s, %v; want %s", d.Digest, err, image.Digest)
	}
}
