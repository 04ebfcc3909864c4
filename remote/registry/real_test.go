package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/remote/registry/registrytest"
)

// realUsers is one user "u" with password "p".
const realUsers = "u:$2b$04$NUsIDIAypBvGtZ4LUJ6Z9eF9UL.KWTTKOJe4DfZ2tpqw.PH2dNd5C\n"

// realRegistry starts Debian's docker-registry, if it is there.
func realRegistry(t *testing.T) (host string) {
	t.Helper()
	return registrytest.Start(t, realUsers)
}

func TestRealRegistry(t *testing.T) {
	host := realRegistry(t)
	ctx := t.Context()
	c := client(t, registry.Config{Credentials: login("u", "p")})

	data := make([]byte, 6<<20)
	rand.NewChaCha8([32]byte{1}).Read(data)
	layer := descriptor(data)
	ref := host + "/team/app:1.0"
	for range 2 { // the second time it is there
		if err := c.Push(ctx, ref, layer, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	config := []byte("{}")
	if err := c.Push(ctx, ref, descriptor(config), io.MultiReader(bytes.NewReader(config))); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},`+
		`"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig,
		descriptor(config).Digest, ocispec.MediaTypeImageLayer, layer.Digest, layer.Size)
	man := manifestDescriptor(text)
	if err := c.Push(ctx, ref, man, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}

	for _, r := range []string{ref, host + "/team/app@" + man.Digest.String()} {
		got, err := c.Resolve(ctx, r)
		if err != nil || got.Digest != man.Digest || got.Size != man.Size || got.MediaType != man.MediaType {
			t.Errorf("resolving %s: %+v, %v", r, got, err)
		}
	}
	for _, want := range []struct {
		desc ocispec.Descriptor
		data []byte
	}{{man, []byte(text)}, {descriptor(config), config}, {layer, data}} {
		r, err := c.Fetch(ctx, ref, want.desc)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(got, want.data) {
			t.Errorf("fetching %s: %d bytes, %v", want.desc.MediaType, len(got), err)
		}
	}
	b, err := c.Open(ref, layer)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 1, 4095, 5 << 20, layer.Size - 3} {
		p := make([]byte, min(70_000, layer.Size-off))
		if _, err := b.ReadAt(ctx, p, off); err != nil || !bytes.Equal(p, data[off:off+int64(len(p))]) {
			t.Errorf("reading %d bytes at %d: wrong, or %v", len(p), off, err)
		}
	}

	if _, err := c.Resolve(ctx, host+"/team/app:2"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a tag that is not there: %v", err)
	}
	anonymous := client(t, registry.Config{})
	if _, err := anonymous.Resolve(ctx, ref); !errors.Is(err, errdefs.ErrUnauthenticated) {
		t.Errorf("without credentials: %v", err)
	}
}

// TestRealRegistrySuite runs the conformance suite of blobs.
func TestRealRegistrySuite(t *testing.T) {
	host := realRegistry(t)
	c := client(t, registry.Config{Credentials: login("u", "p")})
	blobtest.Run(t, func(t *testing.T, data []byte) blob.Blob {
		if err := c.Push(t.Context(), host+"/team/app:1", descriptor(data), bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		return open(t, c, host, data)
	})
}
