package obdconv_test

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/cmd/internal/imagestore/imagestoretest"
	"github.com/reprise-containers/reprise/cmd/internal/obdconv"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// ordinary makes app:1 of two ordinary layers.
func (w *world) ordinary(t *testing.T) (layers []ocispec.Descriptor) {
	t.Helper()
	one, id1 := w.archive("one", false)
	two, id2 := w.archive("two", true)
	w.Image("app:1", []ocispec.Descriptor{one, two}, func(_, config map[string]any) {
		config["rootfs"] = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{id1, id2}}
	})
	return []ocispec.Descriptor{one, two}
}

// inspect returns the text on the device of layers in the content store.
func (w *world) inspect(t *testing.T, layers []ocispec.Descriptor) (text string, described []backstore.Description) {
	t.Helper()
	var files []blob.ReaderAt
	for _, d := range layers {
		data, err := content.ReadBlob(w.Ctx, w.ContentStore(), d)
		if err != nil {
			t.Fatal(err)
		}
		if digest.FromBytes(data) != d.Digest {
			t.Errorf("content of %s has another digest", d.Digest)
		}
		path := t.TempDir() + "/blob"
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := blob.OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		files = append(files, f)
		desc, err := backstore.Describe(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		described = append(described, desc)
	}
	image, err := backstore.Open(t.Context(), files)
	if err != nil {
		t.Fatal(err)
	}
	if image.Size() != deviceSize {
		t.Errorf("the device has %d bytes", image.Size())
	}
	p := make([]byte, 512)
	if err := blob.ReadFull(t.Context(), image, p, 0); err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(string(p), "\x00"), described
}

// What is asked of the snapshotter, and what is made.
func TestRun(t *testing.T) {
	w := newWorld(t)
	source := w.ordinary(t)
	_, before, _ := w.Documents("app:1")
	cfg := w.config()
	cfg.FSType, cfg.VirtualSize, cfg.Compression = "xfs;nouuid", 3, zfile.Options{Algorithm: zfile.LZ4, BlockSize: 8192}
	r, err := obdconv.Run(w.Ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, told := range w.devices.told {
		maps.DeleteFunc(told, func(k, _ string) bool { return strings.HasPrefix(k, "containerd.io/gc.") })
		want := map[string]string{
			"containerd.io/snapshot/overlaybd.writable":     "dir",
			"containerd.io/snapshot/overlaybd/blob-fs-type": "xfs;nouuid",
			"containerd.io/snapshot/overlaybd/vsize":        "3",
		}
		if !maps.Equal(told, want) {
			t.Errorf("the snapshotter was told %v", told)
		}
	}
	if want := []string{"one ", "one two "}; !slices.Equal(w.devices.seen, want) {
		t.Errorf("layers with %q, want %q", w.devices.seen, want)
	}
	m, config, _ := w.Documents("app:2")
	if m.MediaType != images.MediaTypeDockerSchema2Manifest || m.Config.MediaType != ocispec.MediaTypeImageConfig || m.Annotations["a"] != "b" {
		t.Errorf("manifest %+v", m)
	}
	text, described := w.inspect(t, m.Layers)
	if text != "one two " {
		t.Errorf("the device says %q", text)
	}
	var ids []any
	for i, d := range m.Layers {
		ids = append(ids, string(d.Digest))
		checkLayer(t, d, described[i])
		if got := r.Layers[i]; got.Source != source[i].Digest || got.Digest != d.Digest || got.Size != d.Size || got.Kept {
			t.Errorf("reported %+v", got)
		}
	}
	checkConfig(t, config, before, ids)
	if snaps, _, uploads := w.Collect(); snaps != 0 || uploads != 0 {
		t.Errorf("left %d snapshots and %d uploads", snaps, uploads)
	}
	for _, d := range m.Layers { // the image refers to them
		if _, err := w.ContentStore().Info(w.Ctx, d.Digest); err != nil {
			t.Error(err)
		}
	}
	w.checkTemp(t)
}

func checkLayer(t *testing.T, d ocispec.Descriptor, is backstore.Description) {
	t.Helper()
	l, err := labels.Parse(d.Annotations)
	if err != nil || d.MediaType != ocispec.MediaTypeImageLayer || l.Blob != d.Digest || l.BlobSize != d.Size ||
		d.Annotations[labels.FSType] != "xfs;nouuid" || d.Annotations[labels.Version] != "0.1.0" {
		t.Errorf("layer %+v: %v", d, err)
	}
	if ref, err := labels.Chunks(d.Annotations); err != nil || ref.IsZero() || ref.Validate(d.Size) != nil {
		t.Errorf("layer %s has the chunk table %+v, %v", d.Digest, ref, err)
	}
	if is.ZFile == nil || is.ZFile.Algorithm() != zfile.LZ4 || is.ZFile.BlockSize() != 8192 {
		t.Errorf("layer %s is %+v", d.Digest, is)
	}
}

// checkConfig checks that nothing but the diff IDs changed.
func checkConfig(t *testing.T, got, source map[string]any, ids []any) {
	t.Helper()
	if is := got["rootfs"].(map[string]any)["diff_ids"].([]any); !slices.Equal(is, ids) {
		t.Errorf("diff IDs %v, want %v", is, ids)
	}
	for key := range source {
		if key != "rootfs" && !same(got[key], source[key]) {
			t.Errorf("%s is %v, was %v", key, got[key], source[key])
		}
	}
	if len(got) != len(source) {
		t.Errorf("config %v, was %v", got, source)
	}
}

func (w *world) checkTemp(t *testing.T) {
	t.Helper()
	if left, err := os.ReadDir(w.temp); err != nil || len(left) > 0 {
		t.Errorf("left temporary files %v, %v", left, err)
	}
}

// Layers that are of overlaybd stay, and others are put on them; the trace goes.
func TestRunOnBase(t *testing.T) {
	w := newWorld(t)
	two, id := w.archive("two", true)
	base := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("base"), Size: 4096,
		Annotations: map[string]string{labels.BlobDigest: digest.FromString("base").String(), labels.BlobSize: "4096", labels.FSType: "ext4;noatime"},
	}
	trace := base
	trace.Digest = digest.FromString("trace")
	trace.Annotations = labels.TraceBlob{Blob: trace.Digest, BlobSize: 4096}.Annotations()
	w.Image("app:1", []ocispec.Descriptor{base, trace, two}, func(_, config map[string]any) {
		config["rootfs"] = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{base.Digest, trace.Digest, id}}
	})
	if _, err := obdconv.Run(w.Ctx, w.config()); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "rpull") {
		t.Errorf("without the base's snapshot: %v", err)
	}
	sn := w.SnapshotService(imagestoretest.Snapshotter)
	kept := snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "yes"})
	if _, err := sn.Prepare(w.Ctx, "base", "", kept); err != nil {
		t.Fatal(err)
	}
	if err := sn.Commit(w.Ctx, identity.ChainID([]digest.Digest{base.Digest}).String(), "base", kept); err != nil {
		t.Fatal(err)
	}
	r, err := obdconv.Run(w.Ctx, w.config())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Dropped) != 1 || r.Dropped[0] != trace.Digest || len(r.Layers) != 2 || !r.Layers[0].Kept || r.Layers[1].Kept {
		t.Errorf("%+v", r)
	}
	m, config, kept2 := w.Documents("app:2")
	if len(m.Layers) != 2 || m.Layers[0].Digest != base.Digest || m.Layers[0].Annotations[labels.FSType] != "ext4;noatime" ||
		m.Layers[1].Annotations[labels.FSType] != "ext4;noatime" {
		t.Errorf("layers %+v", m.Layers)
	}
	if len(config["history"].([]any)) != 2 {
		t.Errorf("history %v", config["history"])
	}
	if kept2["containerd.io/distribution.source.registry.example.com"] != "team/app" {
		t.Errorf("labels %v: push would not find the base", kept2)
	}
	if snaps, _, _ := w.Collect(); snaps != 1 {
		t.Errorf("left %d snapshots beside the base", snaps-1)
	}
}

// What fails leaves nothing and names the layer.
func TestRunFails(t *testing.T) {
	for fail, want := range map[string]string{
		"prepare": "no device", "commit": "no room", "no layer": labels.LocalCommit, "bad layer": "layer 0",
		"content": "not here", "diff ID": "the config says", "canceled": "cancel",
	} {
		t.Run(fail, func(t *testing.T) {
			w := newWorld(t)
			source := w.ordinary(t)
			w.devices.fail = fail
			ctx, cancel := context.WithCancel(w.Ctx)
			defer cancel()
			switch fail {
			case "content":
				if err := w.ContentStore().Delete(w.Ctx, source[1].Digest); err != nil {
					t.Fatal(err)
				}
			case "diff ID":
				w.Image("app:wrong", source, nil) // the second one is compressed
			case "canceled":
				w.devices.cancel = cancel
			}
			_, before, _ := w.Collect()
			cfg := w.config()
			if fail == "diff ID" {
				cfg.Source = "app:wrong"
			}
			_, err := obdconv.Run(ctx, cfg)
			if err == nil || !strings.Contains(err.Error(), want) || fail != "canceled" && !strings.Contains(err.Error(), "layer ") {
				t.Errorf("error %v, want one with %q", err, want)
			}
			if _, err := w.ImageService().Get(w.Ctx, "app:2"); !errdefs.IsNotFound(err) {
				t.Errorf("there is an image: %v", err)
			}
			if snaps, blobs, uploads := w.Collect(); snaps != 0 || blobs != before || uploads != 0 {
				t.Errorf("left %d snapshots, %d blobs and %d uploads", snaps, blobs-before, uploads)
			}
			w.checkTemp(t)
		})
	}
}

// Images that can't be converted.
func TestRunRefuses(t *testing.T) {
	w := newWorld(t)
	one, _ := w.archive("one", false)
	layer := func(annotations map[string]string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("x"), Size: 1, Annotations: annotations}
	}
	obd := layer(map[string]string{labels.BlobDigest: digest.FromString("x").String(), labels.BlobSize: "1"})
	turbo := layer(map[string]string{labels.TurboDigest: digest.FromString("y").String()})
	for name, c := range map[string]struct {
		layers []ocispec.Descriptor
		want   string
	}{
		"overlaybd:1": {[]ocispec.Descriptor{obd}, "already"},
		"above:1":     {[]ocispec.Descriptor{one, obd}, "others below"},
		"turbo:1":     {[]ocispec.Descriptor{one, turbo}, "TurboOCI"},
		"empty:1":     {nil, "no layers"},
	} {
		w.Image(name, c.layers, nil)
		cfg := w.config()
		cfg.Source = name
		if _, err := obdconv.Run(w.Ctx, cfg); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	cfg := w.config()
	cfg.Source = "nothing:1"
	if _, err := obdconv.Run(w.Ctx, cfg); !errdefs.IsNotFound(err) {
		t.Errorf("no image: %v", err)
	}
	for name, change := range map[string]func(*obdconv.Config){
		"erofs": func(c *obdconv.Config) { c.FSType = "erofs" }, "btrfs": func(c *obdconv.Config) { c.FSType = "btrfs;x" },
		"size": func(c *obdconv.Config) { c.VirtualSize = -1 }, "block": func(c *obdconv.Config) { c.Compression.BlockSize = 65536 },
		"name": func(c *obdconv.Config) { c.Target = "A B" }, "snapshotter": func(c *obdconv.Config) { c.Snapshotter = "other" },
		"none": func(c *obdconv.Config) { c.Source = "" },
	} {
		cfg := w.config()
		change(&cfg)
		if _, err := obdconv.Run(w.Ctx, cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if snaps, _, _ := w.Collect(); snaps != 0 {
		t.Errorf("left %d snapshots", snaps)
	}
}
