package record_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/record"
	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

const (
	oldName = "registry.example.com/team/app:1"
	newName = "registry.example.com/team/app:1-trace"
)

// config returns a configuration with a list of the files that the layers have.
func (w *world) config() record.Config {
	var list string
	for i := range 2 {
		list += "/" + digest.FromString(fmt.Sprint(i)).Encoded()[:8] + " +\n"
	}
	return record.Config{
		Client: w.Client, Old: oldName, New: newName, List: []byte(list + "/none\n"), Time: time.Minute,
		Dir: filepath.Join(w.t.TempDir(), "trace"), Snapshotter: "overlaybd", Runtime: "io.containerd.runc.v2",
	}
}

// clean checks that nothing temporary is left.
func (w *world) clean(cfg record.Config) {
	w.t.Helper()
	if left, err := os.ReadDir(cfg.Dir); err != nil && !os.IsNotExist(err) || len(left) > 0 {
		w.t.Errorf("left in the directory: %v, %v", left, err)
	}
	if left, err := w.LeasesService().List(w.ctx); err != nil || len(left) > 0 {
		w.t.Errorf("leases left: %v, %v", left, err)
	}
	err := w.SnapshotService("overlaybd").Walk(w.ctx, func(_ context.Context, i snapshots.Info) error {
		if i.Kind != snapshots.KindCommitted {
			w.t.Errorf("snapshot %s is left", i.Name)
		}
		return nil
	})
	if err != nil {
		w.t.Error(err)
	}
	if left, err := w.ContentStore().ListStatuses(w.ctx); err != nil || len(left) > 0 {
		w.t.Errorf("unfinished content: %v, %v", left, err)
	}
}

func TestRecord(t *testing.T) {
	w := newWorld(t)
	w.image(oldName, func(manifest, _ map[string]any) {
		manifest["subject"] = ocispec.Descriptor{MediaType: "x", Digest: digest.FromString("x"), Size: 1}
		manifest["artifactType"] = "application/vnd.containerd.overlaybd.native.v1+json"
	})
	before, _, beforeManifest, beforeConfig := w.documents(oldName)
	cfg := w.config()
	var notes []string
	cfg.Note = func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	s, err := record.Run(w.ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.clean(cfg)
	if s.Files != 3 || s.Extents != 2 || s.Planned != 2000 || s.Data != 2000 || s.Name != newName || s.Replaced {
		t.Errorf("%+v", s)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "/none") {
		t.Errorf("notes: %q", notes)
	}
	m, c, manifest, config := w.documents(newName)
	if again, _, _, _ := w.documents(oldName); !reflect.DeepEqual(again, before) {
		t.Errorf("the old image changed: %+v", again)
	}
	top := m.Layers[2]
	if !reflect.DeepEqual(m.Layers[:2], before.Layers) || !labels.IsTrace(top.Annotations) || top.MediaType != ocispec.MediaTypeImageLayer {
		t.Errorf("layers %+v", m.Layers)
	}
	told, err := labels.Parse(top.Annotations)
	if err != nil || told.Blob != top.Digest || told.BlobSize != top.Size || top.Annotations[labels.FSType] != "ext4;;" || told.Plan.Size == 0 {
		t.Errorf("annotations %v: %+v, %v", top.Annotations, told, err)
	}
	members := w.members(top)
	if members["trace"] != int64(len(cfg.List)) || members["trace.data"] != 2000 || members["trace.plan"] == 0 {
		t.Errorf("members %v", members)
	}
	if n := len(c.RootFS.DiffIDs); n != 3 || c.RootFS.DiffIDs[2] != top.Digest {
		t.Errorf("diff IDs %v", c.RootFS.DiffIDs)
	}
	if n := len(c.History); n != 3 || c.History[2].CreatedBy != "Acceleration Layer" || c.History[2].EmptyLayer || time.Since(*c.Created) > time.Hour {
		t.Errorf("history %+v, created %v", c.History, c.Created)
	}
	// All that nobody knows stays.
	for _, d := range []struct{ was, is map[string]any }{{beforeManifest, manifest}, {beforeConfig, config}} {
		for _, key := range []string{"layers", "config", "subject", "artifactType", "rootfs", "history", "created"} {
			delete(d.was, key)
			if key == "subject" || key == "artifactType" {
				if _, there := d.is[key]; there {
					t.Errorf("%s is still there", key)
				}
			}
			delete(d.is, key)
		}
		if !reflect.DeepEqual(d.was, d.is) {
			t.Errorf("was %v, is %v", d.was, d.is)
		}
	}
	w.checkLabels(m, c)
}

// checkLabels checks that the image keeps what it needs from garbage collection,
// and that push knows where it is from.
func (w *world) checkLabels(m ocispec.Manifest, c ocispec.Image) {
	w.t.Helper()
	img, err := w.GetImage(w.ctx, newName)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.ImageService().Delete(w.ctx, oldName); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.db.GarbageCollect(w.ctx); err != nil {
		w.t.Fatal(err)
	}
	for d, want := range map[digest.Digest]map[string]string{
		img.Target().Digest: {
			"containerd.io/distribution.source.registry.example.com": "team/app",
			"containerd.io/gc.ref.content.config":                    m.Config.Digest.String(),
			"containerd.io/gc.ref.content.l.0":                       m.Layers[0].Digest.String(),
			"containerd.io/gc.ref.content.l.1":                       m.Layers[1].Digest.String(),
			"containerd.io/gc.ref.content.l.2":                       m.Layers[2].Digest.String(),
		},
		m.Config.Digest: {
			"containerd.io/distribution.source.registry.example.com": "team/app",
			"containerd.io/gc.ref.snapshot.overlaybd":                identity.ChainID(c.RootFS.DiffIDs).String(),
		},
		m.Layers[2].Digest: {"containerd.io/uncompressed": m.Layers[2].Digest.String()},
	} {
		info, err := w.ContentStore().Info(w.ctx, d)
		if err != nil {
			w.t.Fatal(err)
		}
		if !maps.Equal(info.Labels, want) {
			w.t.Errorf("%s has labels %v, want %v", d, info.Labels, want)
		}
	}
	if ok, err := img.IsUnpacked(w.ctx, "overlaybd"); err != nil || !ok {
		w.t.Errorf("unpacked: %v, %v", ok, err)
	}
}

// A trace that is there is replaced, wherever the new image's name comes from.
func TestRecordReplaces(t *testing.T) {
	w := newWorld(t)
	w.image(oldName, nil)
	first := w.config()
	first.NoData = true
	if s, err := record.Run(w.ctx, first); err != nil || s.Data != 0 || s.Extents != 2 {
		t.Fatalf("%+v, %v", s, err)
	}
	m, _, _, _ := w.documents(newName)
	if members := w.members(m.Layers[2]); members["trace.plan"] == 0 || members["trace.data"] != 0 {
		t.Errorf("without data: %v", members)
	}
	second := w.config()
	second.Old, second.New = newName, newName+"-2"
	s, err := record.Run(w.ctx, second)
	if err != nil || !s.Replaced {
		t.Fatalf("%+v, %v", s, err)
	}
	again, c, _, _ := w.documents(second.New)
	if len(again.Layers) != 3 || again.Layers[2].Digest == m.Layers[2].Digest || len(c.History) != 3 || len(c.RootFS.DiffIDs) != 3 {
		t.Errorf("%+v, %+v", again.Layers, c.History)
	}
	w.clean(second)
}

// Of an index, the manifest for this host is taken; those for others may never
// have been here.
func TestRecordIndex(t *testing.T) {
	w := newWorld(t)
	w.image(oldName, nil)
	img, err := w.GetImage(w.ctx, oldName)
	if err != nil {
		t.Fatal(err)
	}
	here, other := img.Target(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("other"), Size: 1}
	here.Platform, other.Platform = new(platforms.Normalize(platforms.DefaultSpec())), &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	index := w.add(ocispec.MediaTypeImageIndex, marshal(t, ocispec.Index{
		MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{other, here},
	}), nil)
	if _, err := w.ImageService().Create(w.ctx, images.Image{Name: "multi:1", Target: index}); err != nil {
		t.Fatal(err)
	}
	cfg := w.config()
	cfg.Old = "multi:1"
	if _, err := record.Run(w.ctx, cfg); err != nil {
		t.Fatal(err)
	}
	if m, _, _, _ := w.documents(newName); len(m.Layers) != 3 {
		t.Errorf("%+v", m.Layers)
	}
}

// A snapshotter that was not waited for leaves nothing: it has the directory open,
// and can make no file in it.
func TestFilesAreGone(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	trace, remove, err := record.MakeFiles(dir, "one")
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(filepath.Dir(trace))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for range 2 { // removing nothing is no error
		if err := remove(); err != nil {
			t.Fatal(err)
		}
	}
	if f, err := root.Create("trace.plan"); err == nil {
		t.Errorf("%s was made in a directory that is gone", f.Name())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A path in a list means what it means to backstore/files.
func TestListMeanings(t *testing.T) {
	w := newWorld(t)
	w.image(oldName, nil)
	for list, missing := range map[string]string{
		"/":    "",
		"/.\n": "", // a directory, of which the names are read
		"/" + digest.FromString("0").Encoded()[:8] + " +/\n/\n": "+/", // a file is no directory
	} {
		var notes string
		cfg := w.config()
		cfg.List, cfg.New = []byte(list), "list:"+digest.FromString(list).Encoded()
		cfg.Note = func(format string, args ...any) { notes += fmt.Sprintf(format, args...) }
		if _, err := record.Run(w.ctx, cfg); err != nil {
			t.Errorf("%q: %v", list, err)
		}
		if (missing == "") != (notes == "") || !strings.Contains(notes, missing) {
			t.Errorf("%q: noted %q, want %q", list, notes, missing)
		}
	}
}

// Without its trace, the copy is the image that was recorded, digest and all.
func TestRecordStripped(t *testing.T) {
	w := newWorld(t)
	w.image(oldName, nil)
	if _, err := record.Run(w.ctx, w.config()); err != nil {
		t.Fatal(err)
	}
	manifest, config := w.texts(newName)
	d, err := traces.Drop(manifest, config)
	if err != nil {
		t.Fatal(err)
	}
	if was, _ := w.texts(oldName); string(d.Manifest) != string(was) {
		t.Errorf("without the trace: %s, was %s", d.Manifest, was)
	}
}

func TestRecordWithoutHistory(t *testing.T) {
	w := newWorld(t)
	w.image(oldName, func(_, config map[string]any) { delete(config, "history") })
	if _, err := record.Run(w.ctx, w.config()); err != nil {
		t.Fatal(err)
	}
	if _, c, _, _ := w.documents(newName); len(c.History) != 0 {
		t.Errorf("history %+v", c.History)
	}
}

// What goes wrong with a recording leaves neither an image nor anything else.
func TestRecordFails(t *testing.T) {
	for fail, want := range map[string]string{
		"silent":     "does not record",
		"error":      "the disk is full",
		"empty":      "nothing was read",
		"wrong data": "its plan says",
	} {
		t.Run(fail, func(t *testing.T) {
			w := newWorld(t)
			w.image(oldName, nil)
			w.recorder.fail = fail
			cfg := w.config()
			_, err := record.Run(w.ctx, cfg)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
			w.recorder.wg.Wait()
			w.clean(cfg)
			if _, err := w.GetImage(w.ctx, newName); !errdefs.IsNotFound(err) {
				t.Errorf("the new image: %v", err)
			}
		})
	}
	w := newWorld(t)
	w.image(oldName, nil)
	w.recorder.fail = "no plan"
	if s, err := record.Run(w.ctx, w.config()); err != nil || s.Extents != 0 {
		t.Errorf("without a plan: %+v, %v", s, err)
	}
}

func TestRecordRefuses(t *testing.T) {
	w := newWorld(t)
	w.image(oldName, nil)
	w.image("plain:1", func(manifest, _ map[string]any) {
		layers := manifest["layers"].([]ocispec.Descriptor)
		layers[1].Annotations = nil
	})
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*record.Config)
		want   string
	}{
		"a name that is taken":    {func(c *record.Config) { c.New = "plain:1" }, "already"},
		"its own name":            {func(c *record.Config) { c.New = c.Old }, "name of its own"},
		"a name that is none":     {func(c *record.Config) { c.New = "bad ref!!" }, "bad ref!!"},
		"no image":                {func(c *record.Config) { c.Old = "none:1" }, "rpull"},
		"an ordinary image":       {func(c *record.Config) { c.Old = "plain:1" }, "reprise convert"},
		"no time":                 {func(c *record.Config) { c.Time = 0 }, "longer than nothing"},
		"a list and a command":    {func(c *record.Config) { c.Args = []string{"sh"} }, "no command"},
		"an empty list":           {func(c *record.Config) { c.List = []byte("\n") }, "names no file"},
		"a list of nothing":       {func(c *record.Config) { c.List = []byte("/x\n/y/\n") }, "none of the files"},
		"a directory for all":     {func(c *record.Config) { c.Dir = open }, "written to by others"},
		"a relative directory":    {func(c *record.Config) { c.Dir = "x" }, "absolute"},
		"another snapshotter":     {func(c *record.Config) { c.Snapshotter = "none" }, "[proxy_plugins.none]"},
		"a file as the directory": {func(c *record.Config) { c.Dir = "/dev/null" }, "not a directory"},
	} {
		cfg := w.config()
		c.change(&cfg)
		_, err := record.Run(w.ctx, cfg)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	w.recorder.wg.Wait()
	w.clean(w.config())
}
