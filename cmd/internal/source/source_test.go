package source_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// want fails the test unless img has exactly these layers.
func want(t *testing.T, img *source.Image, err error, kind source.Kind, layers ...string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if got := contents(t, img); img.Kind != kind || !slices.Equal(got, layers) {
		t.Errorf("%s %s has layers %q, want %s with %q", img.Kind, img.Name, got, kind, layers)
	}
}

// wantError fails the test unless err says all of parts.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("error %v, want one with %q", err, p)
		}
	}
}

func TestLayout(t *testing.T) {
	l := newLayout(t)
	one := l.image("one", l.layer("bottom"), l.layer("top", labels.FSType, "ext4;discard"))
	l.image("two", l.layer("other"))
	dir := l.path()

	img, err := open(t, dir+":one", source.Config{})
	want(t, img, err, source.KindLayout, "bottom", "top")
	if img.FSType != "ext4" || img.Manifest.Digest != one.Digest || img.MetadataBytes != one.Size {
		t.Errorf("opened %+v", img)
	}
	if d := img.Layers[1].Descriptor(); d.Annotations[labels.FSType] == "" || d.Size != 3 {
		t.Errorf("descriptor %+v", d)
	}
	img, err = open(t, dir+"@"+one.Digest.String(), source.Config{})
	want(t, img, err, source.KindLayout, "bottom", "top")

	_, err = open(t, dir, source.Config{})
	wantError(t, err, "append one of :one, :two")
	_, err = open(t, dir+":three", source.Config{})
	wantError(t, err, `no "three"; there is :one, :two`)
	_, err = open(t, t.TempDir(), source.Config{})
	wantError(t, err, "not an OCI layout")
	_, err = open(t, newLayout(t).path(), source.Config{})
	wantError(t, err, "empty")
}

func TestArchive(t *testing.T) {
	l := newLayout(t)
	l.image("one", l.layer("bottom"), l.layer("top"))
	a := l.archive()
	img, err := open(t, a, source.Config{})
	want(t, img, err, source.KindArchive, "bottom", "top")
	img, err = open(t, a+":one", source.Config{})
	want(t, img, err, source.KindArchive, "bottom", "top")
	_, err = open(t, a+":two", source.Config{})
	wantError(t, err, `no "two"`)
}

func TestPlatforms(t *testing.T) {
	l := newLayout(t)
	amd, arm := l.image("", l.layer("amd64")), l.image("", l.layer("arm64"))
	amd.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	arm.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	attestation := l.image("", l.layer("attestation"))
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	d := l.document(ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{attestation, amd, arm}})
	l.index.Manifests = append(l.index.Manifests, d)
	dir := l.path()

	for _, arch := range []string{"amd64", "arm64"} {
		img, err := open(t, dir, source.Config{Platform: "linux/" + arch})
		want(t, img, err, source.KindLayout, arch)
	}
	_, err := open(t, dir, source.Config{Platform: "linux/s390x"})
	wantError(t, err, "linux/amd64", "linux/arm64", "--platform")
	_, err = open(t, dir, source.Config{Platform: "a/b/c/d/e"})
	wantError(t, err, "parsing platform")
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a, b := write("a.blob", "layer a"), write("b.blob", "layer b")
	img, err := open(t, a, source.Config{})
	want(t, img, err, source.KindFile, "layer a")
	if img.Layers[0].Descriptor().Digest != "" {
		t.Error("a bare file claims a digest")
	}
	img, err = source.OpenAll(t.Context(), []string{a, b}, source.Config{})
	want(t, img, err, source.KindFile, "layer a", "layer b")
	if err := img.Close(); err != nil {
		t.Error(err)
	}
	_, err = open(t, write("x.gz", "\x1f\x8bxxx"), source.Config{})
	wantError(t, err, "gzip", "decompress it first")
	_, err = open(t, a+":tag", source.Config{})
	wantError(t, err, "not an OCI archive")
	_, err = open(t, a+"/below", source.Config{})
	wantError(t, err, "no such file")
	_, err = open(t, "", source.Config{})
	wantError(t, err, "no image given")
	l := newLayout(t)
	l.image("one", l.layer("x"))
	_, err = source.OpenAll(t.Context(), []string{a, l.path()}, source.Config{})
	wantError(t, err, "whole image")
}

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	l := newLayout(t)
	remote := l.layer("from the registry")
	write := func(name, data string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := write("base", "bottom")
	write("layer/overlaybd.commit", "top")
	cfg := source.Config{Registry: layoutRegistry{l}}
	img, err := open(t, write("config.v1.json", `{"repoBlobUrl":"https://registry.example.com/v2/a/b/blobs",
		"lowers":[{"file":"`+file+`"},{"digest":"`+remote.Digest.String()+`","size":17,"dir":"`+dir+`/none"},
		{"dir":"`+dir+`/layer"},{"dir":"/trace"}],"accelerationLayer":true,"resultFile":"x"}`), cfg)
	want(t, img, err, source.KindConfig, "bottom", "from the registry", "top")

	for text, part := range map[string]string{
		`{"lowers":[]}`:                               "names no lowers",
		`{"lowers":[{"dir":"/nowhere"}]}`:             "lower 0",
		`{"lowers":[{}]}`:                             "neither file, dir nor digest",
		`{"lowers":[{"digest":"nonsense","size":1}]}`: "nonsense",
		`{"lowers":[{"targetDigest":"x"}]}`:           "TurboOCI",
		`{"lowers":`:                                  "parsing",
		`{"repoBlobUrl":"ftp:","lowers":[{"digest":"` + remote.Digest.String() + `","size":1}]}`: "repoBlobUrl",
	} {
		_, err := open(t, write("bad.json", text), cfg)
		wantError(t, err, part)
	}
}

func TestReference(t *testing.T) {
	l := newLayout(t)
	l.image("docker.io/library/app:latest", l.layer("bottom"), l.layer("reads", labels.Trace, "yes"))
	l.path()
	cfg := source.Config{Registry: layoutRegistry{l}}
	img, err := open(t, "app", cfg)
	want(t, img, err, source.KindRegistry, "bottom")
	if img.Name != "docker.io/library/app:latest" || img.Trace == nil || img.Trace.Size() != 5 {
		t.Errorf("opened %+v", img)
	}
	_, err = open(t, "registry.example.com/none:1", cfg)
	wantError(t, err, "there is no file registry.example.com/none:1 either")
	_, err = open(t, "Not A Reference", cfg)
	wantError(t, err, "neither a registry reference, nor an OCI layout directory, nor a file")
	_, err = open(t, "./none", cfg)
	wantError(t, err, "no such file or directory")
}

func TestUnusableLayers(t *testing.T) {
	l := newLayout(t)
	plain := l.blob(ocispec.MediaTypeImageLayerGzip, []byte("tar.gz"))
	huge := l.layer("x")
	huge.Size = 1 << 60
	bad := l.layer("y")
	bad.Digest = "sha256:../../etc/passwd"
	for tag, c := range map[string]struct {
		layers []ocispec.Descriptor
		part   string
	}{
		"plain": {[]ocispec.Descriptor{plain}, "convert it first"},
		"mixed": {[]ocispec.Descriptor{l.layer("a"), plain}, "layer 1"},
		"empty": {nil, "convert it first"},
		"turbo": {[]ocispec.Descriptor{l.layer("a", labels.TurboDigest, digest.FromString("x").String())}, "TurboOCI"},
		"huge":  {[]ocispec.Descriptor{huge}, "size of"},
		"bad":   {[]ocispec.Descriptor{bad}, "digest"},
		"label": {[]ocispec.Descriptor{l.layer("a", labels.BlobSize, "many")}, "blob-size"},
	} {
		l.image(tag, c.layers...)
		_, err := open(t, l.path()+":"+tag, source.Config{})
		wantError(t, err, c.part)
	}
	_, err := open(t, l.path()+":plain", source.Config{})
	if !errors.Is(err, source.ErrNotOverlaybd) {
		t.Errorf("error %v", err)
	}
}

// A trace layer that something was stacked on is no layer of the device, and not
// the trace of the image.
func TestStaleTrace(t *testing.T) {
	l := newLayout(t)
	one, two := l.layer("reads", labels.Trace, "yes"), l.layer("more reads", labels.Trace, "yes")
	l.image("stale", l.layer("a"), one, l.layer("b"))
	l.image("both", l.layer("a"), one, l.layer("b"), two)
	l.image("two", l.layer("a"), one, two)
	for tag, c := range map[string]struct{ layers, stale, trace int }{
		"stale": {2, 1, 0}, "both": {2, 1, 10}, "two": {1, 1, 10},
	} {
		img, err := open(t, l.path()+":"+tag, source.Config{})
		if err != nil {
			t.Error(err)
			continue
		}
		trace := 0
		if img.Trace != nil {
			trace = int(img.Trace.Size())
		}
		if len(img.Layers) != c.layers || len(img.Stale) != c.stale || trace != c.trace {
			t.Errorf("%s: %d layers, %d stale, trace of %d", tag, len(img.Layers), len(img.Stale), trace)
		}
	}
}

// A layer that is damaged in a way that can be seen without reading it must not
// keep a command from looking at the others.
func TestBrokenLayersFailWhenRead(t *testing.T) {
	l := newLayout(t)
	missing, short := l.layer("missing"), l.layer("cut short")
	l.image("one", l.layer("good"), missing, short)
	if err := os.Remove(filepath.Join(l.dir, "blobs/sha256", missing.Digest.Encoded())); err != nil {
		t.Fatal(err)
	}
	l.write("blobs/sha256/"+short.Digest.Encoded(), []byte("cut"))
	img, err := open(t, l.path(), source.Config{})
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 3)
	for n, part := range []string{"", "no such file", "has 3 bytes where the manifest says 9"} {
		_, err := img.Layers[n].ReadAt(t.Context(), b, 0)
		if part == "" && err != nil {
			t.Error(err)
		} else if part != "" {
			wantError(t, err, part)
		}
	}
}

func TestDamagedDocuments(t *testing.T) {
	l := newLayout(t)
	d := l.image("one", l.layer("x"))
	dir := l.path()
	l.write("blobs/sha256/"+d.Digest.Encoded(), []byte(`{"layers":[]}`))
	_, err := open(t, dir, source.Config{})
	wantError(t, err, "different digest")
	l.write("index.json", []byte("{"))
	_, err = open(t, dir, source.Config{})
	wantError(t, err, "reading the index")
	l.write("index.json", make([]byte, 5<<20))
	_, err = open(t, dir, source.Config{})
	wantError(t, err, "larger than")
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"lowers":[{"file":"/dev/null"}]}`))
	f.Add([]byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		img, err := source.Open(t.Context(), path, source.Config{})
		if (img == nil) == (err == nil) {
			t.Fatalf("image %v and error %v", img, err)
		}
		if err == nil {
			img.Close()
		}
	})
}
