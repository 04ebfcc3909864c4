package imagestore_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/imagestore"
	"github.com/reprise-containers/reprise/cmd/internal/imagestore/imagestoretest"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

func newWorld(t *testing.T) *imagestoretest.World {
	return imagestoretest.New(t, func(s snapshots.Snapshotter) snapshots.Snapshotter { return s })
}

func blob(text string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString(text), Size: 1}
}

// An image is read without its trace, and made again of what was read.
func TestOpenAndMake(t *testing.T) {
	w := newWorld(t)
	trace := blob("trace")
	trace.Annotations = labels.TraceBlob{Blob: trace.Digest, BlobSize: 1}.Annotations()
	w.Image("app:1", []ocispec.Descriptor{blob("one"), trace}, nil)
	i, err := imagestore.Open(w.Ctx, w.Client, "app:1")
	if err != nil {
		t.Fatal(err)
	}
	if len(i.Manifest.Layers) != 1 || len(i.Dropped) != 1 || !slices.Equal(i.DiffIDs, []digest.Digest{blob("one").Digest}) || len(i.Stored) != 2 ||
		i.MediaType != ocispec.MediaTypeImageManifest || i.Origins["containerd.io/distribution.source.registry.example.com"] != "team/app" {
		t.Errorf("%+v", i)
	}
	d := imagestore.Documents{
		Name: "app:2", Manifest: i.Manifest, Config: i.Config, ConfigType: i.Manifest.Config.MediaType,
		Labels: map[string]string{"a": "b"}, Snapshots: map[string]digest.Digest{"s": i.Chain()[0]},
	}
	first, err := imagestore.Make(w.Ctx, w.Client, d)
	if err != nil {
		t.Fatal(err)
	}
	m, config, kept := w.Documents("app:2")
	if len(m.Layers) != 1 || config["unknown"] != 1.0 || kept["a"] != "b" || kept["containerd.io/gc.ref.snapshot.s"] != i.Chain()[0].String() ||
		kept["containerd.io/gc.ref.content.l.0"] != blob("one").Digest.String() || kept["containerd.io/gc.ref.content.config"] != m.Config.Digest.String() {
		t.Errorf("%+v, %v, %v", m, config, kept)
	}
	// The same again, with another label, is the same image with both.
	d.Labels = map[string]string{"c": "d"}
	again, err := imagestore.Make(w.Ctx, w.Client, d)
	if err != nil || again.Digest != first.Digest {
		t.Errorf("%v, %v", again, err)
	}
	if _, _, kept = w.Documents("app:2"); kept["a"] != "b" || kept["c"] != "d" {
		t.Errorf("labels %v", kept)
	}
}

func TestOpenRefuses(t *testing.T) {
	w := newWorld(t)
	if _, err := imagestore.Open(w.Ctx, w.Client, "none:1"); !errdefs.IsNotFound(err) {
		t.Errorf("no image: %v", err)
	}
	other := blob("other")
	other.MediaType = "text/plain"
	for name, c := range map[string]struct {
		layers []ocispec.Descriptor
		change func(manifest, config map[string]any)
		want   string
	}{
		"none": {nil, nil, "no layers"},
		"text": {[]ocispec.Descriptor{other}, nil, "text/plain"},
		"more": {[]ocispec.Descriptor{blob("a")}, func(_, config map[string]any) {
			config["rootfs"] = ocispec.RootFS{DiffIDs: []digest.Digest{blob("a").Digest, blob("b").Digest}}
		}, "2 diff IDs"},
		"bad": {[]ocispec.Descriptor{blob("a")}, func(_, config map[string]any) {
			config["rootfs"] = ocispec.RootFS{DiffIDs: []digest.Digest{"x"}}
		}, "diff ID"},
		"index": {[]ocispec.Descriptor{blob("a")}, func(manifest, _ map[string]any) { manifest["mediaType"] = "application/x" }, "not supported"},
	} {
		w.Image(name+":1", c.layers, c.change)
		if _, err := imagestore.Open(w.Ctx, w.Client, name+":1"); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// containerd notes repositories without the port of the registry.
func TestOrigins(t *testing.T) {
	const source = "containerd.io/distribution.source."
	w := newWorld(t)
	for name, want := range map[string]string{
		"registry.example.com:5000/team/app:1": source + "registry.example.com:5000",
		"registry.example.com/team/app:1":      source + "registry.example.com",
		"other.example.com:5000/team/app:1":    "",
	} {
		w.Image(name, []ocispec.Descriptor{blob("one")}, nil)
		i, err := imagestore.Open(w.Ctx, w.Client, name)
		if err != nil {
			t.Fatal(err)
		}
		if i.Origins[source+"registry.example.com"] != "team/app" || want != "" && i.Origins[want] != "team/app" || want == "" && len(i.Origins) != 1 {
			t.Errorf("%s: %v", name, i.Origins)
		}
	}
}
