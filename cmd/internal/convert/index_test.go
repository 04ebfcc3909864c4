package convert_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

var (
	arm64   = ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	windows = ocispec.Platform{OS: "windows", Architecture: "amd64"}
)

func (b *builder) index(children ...ocispec.Descriptor) ocispec.Descriptor {
	return b.json(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: children, Annotations: map[string]string{"index": "yes"},
	})
}

// artifact makes a manifest that is no image.
func (b *builder) artifact() ocispec.Descriptor {
	return b.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: b.blob("application/vnd.example+json", []byte("{}")), Layers: []ocispec.Descriptor{},
	})
}

// multi makes a layout with an image for two platforms, and all that can be
// around them.
func multi(t *testing.T) string {
	b := newBuilder(t)
	layers := three()
	attestation := b.artifact()
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	first := b.image(amd64, layers...)
	first.Annotations = map[string]string{"entry": "first"}
	b.tag(map[string]ocispec.Descriptor{"1": b.index(first, attestation,
		b.image(windows, layers[0]), b.index(b.image(arm64, layers[1:]...)), b.artifact())})
	return b.dir + ":1"
}

func TestIndex(t *testing.T) {
	to := t.TempDir()
	r := mustRun(t, config(t), multi(t), to+":1")
	c := content(t, to+":1", source.Config{})
	var index, inner ocispec.Index
	document(t, c, c.Root, &index)
	if c.Root.Digest != r.Digest || index.Annotations["index"] != "yes" || len(index.Manifests) != 2 {
		t.Fatalf("%+v, report %+v", index, r)
	}
	first := index.Manifests[0]
	if first.Platform.Architecture != "amd64" || first.Annotations["entry"] != "first" || first.Digest != r.Images[0].Manifest {
		t.Errorf("first entry %+v", first)
	}
	document(t, c, index.Manifests[1], &inner)
	if len(inner.Manifests) != 1 || inner.Manifests[0].Platform.Variant != "v8" || r.Images[1].Platform != "linux/arm64" {
		t.Errorf("inner index %+v", inner)
	}
	var reasons []string
	for _, s := range r.Skipped {
		reasons = append(reasons, s.Reason)
	}
	for i, part := range []string{"an attestation", "an image for windows/amd64", "not a container image"} {
		if len(reasons) != 3 || !strings.Contains(reasons[i], part) {
			t.Errorf("skipped %q, want %q", reasons, part)
		}
	}
	// The index of the layout has the one image only.
	if img, err := source.Open(t.Context(), to, source.Config{Platform: "linux/amd64"}); err != nil || len(img.Layers) != 3 {
		t.Errorf("%+v, %v", img, err)
	}
}

func TestPlatform(t *testing.T) {
	from := multi(t)
	all := mustRun(t, config(t), from, t.TempDir())
	many := config(t)
	many.Workers = 8 // several images at a time
	if r := mustRun(t, many, from, t.TempDir()); r.Digest != all.Digest || len(r.Images) != 2 || r.Images[0].Manifest != all.Images[0].Manifest {
		t.Errorf("in parallel it is %+v, want %+v", r, all)
	}
	cfg := config(t)
	cfg.Platform = "linux/amd64"
	r := mustRun(t, cfg, from, t.TempDir())
	if r.MediaType != ocispec.MediaTypeImageManifest || r.Digest != all.Images[0].Manifest {
		t.Errorf("%+v, want the manifest %s", r, all.Images[0].Manifest)
	}
	cfg.Platform = "linux/s390x"
	if _, err := run(t, cfg, from, t.TempDir()); err == nil || !strings.Contains(err.Error(), "no manifest for this platform") {
		t.Errorf("a platform that is not there: %v", err)
	}
	cfg.Platform = ""
	b := newBuilder(t)
	b.tag(map[string]ocispec.Descriptor{"1": b.index(b.image(windows, three()...))})
	if _, err := run(t, cfg, b.dir, t.TempDir()); err == nil || !strings.Contains(err.Error(), "nothing that can be converted") {
		t.Errorf("an index without anything: %v", err)
	}
}

// An image without an index is for one platform as well, which its config says,
// and may be an entry of a layout.
func TestPlatformOfManifest(t *testing.T) {
	b := newBuilder(t)
	image := b.image(amd64, three()...)
	bare := image
	bare.Platform = nil
	b.tag(map[string]ocispec.Descriptor{"entry": image, "bare": bare, "index": b.index(bare)})
	for _, tag := range []string{"entry", "bare", "index"} {
		for _, referrer := range []bool{false, true} {
			cfg := config(t)
			cfg.Platform, cfg.Referrer = "linux/arm64", referrer
			to := t.TempDir()
			_, err := run(t, cfg, b.dir+":"+tag, to)
			if err == nil || !strings.Contains(err.Error(), "is for linux/amd64, not for linux/arm64") {
				t.Errorf("%s: %v", tag, err)
			}
			if left := entries(t, to); len(left) > 0 {
				t.Errorf("%s: left %q", tag, left)
			}
		}
		cfg := config(t)
		cfg.Platform = "linux/amd64"
		mustRun(t, cfg, b.dir+":"+tag, t.TempDir())
	}
}

// With Referrer the name stands for the source, and what was converted refers
// to it.
func TestReferrer(t *testing.T) {
	from, to := multi(t), t.TempDir()
	cfg := config(t)
	cfg.Referrer = true
	r := mustRun(t, cfg, from, to+":1")
	src := content(t, from, source.Config{})
	c := content(t, to+":1", source.Config{})
	if c.Root.Digest != src.Root.Digest || r.Tagged != src.Root.Digest || r.SourceDigest != src.Root.Digest {
		t.Errorf("tagged %s, want the source %s", c.Root.Digest, src.Root.Digest)
	}
	var index ocispec.Index
	document(t, c, ocispec.Descriptor{Digest: r.Digest}, &index)
	if index.Subject == nil || index.Subject.Digest != src.Root.Digest || index.ArtifactType != labels.ConvertedArtifact {
		t.Errorf("%+v does not refer to %s", index, src.Root.Digest)
	}
	for i, img := range r.Images {
		var m ocispec.Manifest
		document(t, c, ocispec.Descriptor{Digest: img.Manifest}, &m)
		if m.Subject == nil || m.Subject.Digest != img.SourceManifest || m.ArtifactType != labels.ConvertedArtifact || m.Layers[0].Annotations[labels.BlobDigest] == "" {
			t.Errorf("image %d: %+v does not refer to %s", i, m, img.SourceManifest)
		}
	}
	// Also everything that is not converted was copied.
	var copied ocispec.Index
	document(t, c, c.Root, &copied)
	for _, d := range copied.Manifests {
		if _, err := c.Read(t.Context(), d); err != nil {
			t.Errorf("%s: %v", d.Digest, err)
		}
	}
	if _, err := run(t, cfg, to+"@"+r.Images[0].Manifest.String(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "nothing to attach") {
		t.Errorf("attaching an overlaybd image to itself: %v", err)
	}
}

func TestOverlaybdSources(t *testing.T) {
	b := newBuilder(t)
	yes, turbo := three(), three()
	yes[1].annotations = map[string]string{labels.BlobDigest: "sha256:" + strings.Repeat("0", 64)}
	ext4 := three()
	ext4[0].annotations = map[string]string{labels.BlobDigest: "sha256:" + strings.Repeat("0", 64)}
	size := make([]layer, 3)
	for i := range size {
		size[i] = plainLayer([]byte{byte(i)})
		size[i].annotations = labels.Converted{
			Blob: digest.FromBytes(size[i].tar), BlobSize: 1, FSType: "erofs", SourceChain: digest.FromString("x"), Converter: "1;erofs;zstd;4096;68719476736",
		}.Annotations(nil)
	}
	turbo[0].annotations = map[string]string{labels.TurboDigest: "sha256:" + strings.Repeat("0", 64)}
	b.tag(map[string]ocispec.Descriptor{
		"mixed": b.image(amd64, yes...), "on ext4": b.image(amd64, ext4...), "other size": b.image(amd64, append(size, three()[0])...), "turbo": b.image(amd64, turbo...),
	})
	for tag, part := range map[string]string{
		"mixed": "1 of its 3 layers are overlaybd layers already", "on ext4": "1 of its 3 layers are overlaybd layers already", "other size": "3 of its 4 layers", "turbo": "TurboOCI",
	} {
		to := t.TempDir()
		if _, err := run(t, config(t), b.dir+":"+tag, to); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v, want %q", tag, err, part)
		}
		if left := entries(t, to); len(left) > 0 {
			t.Errorf("%s: left %q", tag, left)
		}
	}
}

// A tag that was converted stays as it is when a later conversion fails.
func TestFailureKeepsTag(t *testing.T) {
	to := t.TempDir()
	first := mustRun(t, config(t), single(t, three()...), to+":1")
	bad := three()
	bad[1].blob = bad[1].blob[:len(bad[1].blob)-100]
	if _, err := run(t, config(t), single(t, bad...), to+":1"); err == nil {
		t.Error("a truncated layer was converted")
	}
	if c := content(t, to+":1", source.Config{}); c.Root.Digest != first.Digest {
		t.Errorf("the tag went from %s to %s", first.Digest, c.Root.Digest)
	}
	if names := entries(t, to); !slices.Equal(names, []string{"blobs", "index.json", "oci-layout"}) {
		t.Errorf("left %q", names)
	}
}
