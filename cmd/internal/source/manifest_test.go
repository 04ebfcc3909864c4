package source_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
)

// documents are manifests and indexes by digest.
type documents map[digest.Digest][]byte

func (d documents) add(t *testing.T, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	d[desc.Digest] = text
	return desc
}

func (d documents) read(_ context.Context, desc ocispec.Descriptor) (source.Document, error) {
	text, ok := d[desc.Digest]
	if !ok {
		return source.Document{}, fs.ErrNotExist
	}
	return source.ParseDocument(desc, text)
}

func TestChooseManifest(t *testing.T) {
	d := documents{}
	config := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromString("config"), Size: 1}
	manifest := func(name string) ocispec.Descriptor {
		return d.add(t, ocispec.MediaTypeImageManifest, ocispec.Manifest{
			MediaType: ocispec.MediaTypeImageManifest, Config: config, Annotations: map[string]string{"name": name},
		})
	}
	index := func(entries ...ocispec.Descriptor) ocispec.Descriptor {
		return d.add(t, ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: entries})
	}
	arm, plain, attested := manifest("arm64"), manifest("plain"), manifest("attestation")
	arm.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	attested.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": arm.Digest.String()}
	gone := arm
	gone.Digest = digest.FromString("gone")
	deep := index(arm)
	for range source.MaxDepth - 1 {
		deep = index(deep)
	}
	for name, c := range map[string]struct {
		root ocispec.Descriptor
		want digest.Digest
		err  error
	}{
		"a manifest":           {plain, plain.Digest, nil},
		"an index":             {index(arm), arm.Digest, nil},
		"behind what is about": {index(attested, arm), arm.Digest, nil},
		"as deep as may be":    {deep, arm.Digest, nil},
		"deeper":               {index(deep), "", source.ErrDepth},
		"not there":            {index(gone), "", fs.ErrNotExist},
	} {
		got, err := source.ChooseManifest(t.Context(), c.root, "linux/arm64", d.read)
		if !errors.Is(err, c.err) || c.err == nil && (err != nil || got.Desc.Digest != c.want) {
			t.Errorf("%s: %s, %v; want %s, %v", name, got.Desc.Digest, err, c.want, c.err)
		}
		if c.want == arm.Digest && (got.Desc.Platform == nil || got.Desc.Platform.Architecture != "arm64") {
			t.Errorf("%s: the entry's platform is lost: %+v", name, got.Desc)
		}
	}
	for _, platform := range []string{"linux/s390x", "a/b/c/d/e"} {
		if got, err := source.ChooseManifest(t.Context(), index(arm), platform, d.read); err == nil {
			t.Errorf("%s: %+v", platform, got.Desc)
		}
	}
}
