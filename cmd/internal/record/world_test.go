package record_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/introspection"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	contentlocal "github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

// recorder answers as a snapshotter that provides overlaybd layers and records,
// on top of plain directories: each lazy layer has one file, with its diff ID.
type recorder struct {
	snapshots.Snapshotter
	plan *tracelayer.Plan
	fail string // "", "silent", "error", "no plan", "empty", "wrong data"
	wg   sync.WaitGroup
}

// trace is what is always recorded.
var trace = tracelayer.Trace{
	{Op: tracelayer.Read, Layer: 0, Off: 0, Count: 4096},
	{Op: tracelayer.Read, Layer: 1, Off: 8192, Count: 512},
}

func (s *recorder) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	var info snapshots.Info
	for _, o := range opts {
		if err := o(&info); err != nil {
			return nil, err
		}
	}
	mounts, err := s.Snapshotter.Prepare(ctx, key, parent, opts...)
	told, parseErr := labels.Parse(info.Labels)
	if err := errors.Join(err, parseErr); err != nil {
		return nil, err
	}
	switch {
	case told.Class() == labels.Lazy:
		if err := os.WriteFile(filepath.Join(mounts[0].Source, told.DiffID.Encoded()[:8]+" +"), []byte("text"), 0o644); err != nil {
			return nil, err
		}
		if err := s.Commit(ctx, told.Target, key, opts...); err != nil {
			return nil, err
		}
		return nil, errdefs.ErrAlreadyExists
	case told.RecordTrace && s.fail != "silent":
		if err := os.WriteFile(told.RecordPath+".lock", nil, 0o600); err != nil {
			return nil, err
		}
		s.wg.Go(func() { s.record(told.RecordPath) })
	}
	return mounts, nil
}

// record is what a snapshotter does until the lock is gone, and then.
func (s *recorder) record(path string) {
	for {
		if _, err := os.Stat(path + ".lock"); err != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if s.fail == "error" {
		write(path+".err", []byte("the disk is full"))
		return
	}
	recorded := trace
	if s.fail == "empty" {
		recorded = nil
	}
	write(path, recorded.Encode())
	if s.fail != "no plan" {
		text, err := s.plan.Encode()
		if err != nil {
			panic(err)
		}
		write(path+".plan", text)
		n := s.plan.DataSize()
		if s.fail == "wrong data" {
			n--
		}
		write(path+".data", make([]byte, n))
	}
	write(path+".ok", nil)
}

func write(name string, data []byte) {
	if err := os.WriteFile(name, data, 0o600); err != nil {
		panic(err)
	}
}

// plugins tells the client that snapshotter overlaybd exists.
type plugins struct{ introspection.Service }

func (plugins) Plugins(_ context.Context, filters ...string) (*introspectionapi.PluginsResponse, error) {
	r := &introspectionapi.PluginsResponse{}
	if filters[0] == "type==io.containerd.snapshotter.v1, id==overlaybd" {
		r.Plugins = append(r.Plugins, &introspectionapi.Plugin{ID: "overlaybd"})
	}
	return r, nil
}

// world is containerd's own stores and services without a daemon around them.
type world struct {
	*containerd.Client
	t        *testing.T
	ctx      context.Context
	db       *metadata.DB
	recorder *recorder
}

// newWorld needs root: unpacking mounts.
func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("unpacking a layer mounts its snapshot: needs root")
	}
	dir := t.TempDir()
	cs, err := contentlocal.NewStore(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := native.NewSnapshotter(filepath.Join(dir, "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	sn := &recorder{Snapshotter: dirs}
	store, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		sn.wg.Wait()
		dirs.Close()
		store.Close()
	})
	db := metadata.NewDB(store, cs, map[string]snapshots.Snapshotter{"overlaybd": sn})
	if err := db.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	differ := struct {
		diff.Comparer
		diff.Applier
	}{walking.NewWalkingDiff(db.ContentStore()), apply.NewFileSystemApplier(db.ContentStore())}
	client, err := containerd.New("", containerd.WithServices(
		containerd.WithContentStore(db.ContentStore()),
		containerd.WithImageStore(metadata.NewImageStore(db)),
		containerd.WithSnapshotters(map[string]snapshots.Snapshotter{"overlaybd": db.Snapshotter("overlaybd")}),
		containerd.WithLeasesService(metadata.NewLeaseManager(db)),
		containerd.WithDiffService(differ),
		containerd.WithIntrospectionService(plugins{}),
	))
	if err != nil {
		t.Fatal(err)
	}
	return &world{Client: client, t: t, ctx: namespaces.WithNamespace(t.Context(), "test"), db: db, recorder: sn}
}

func (w *world) add(mediaType string, data []byte, l map[string]string) ocispec.Descriptor {
	w.t.Helper()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := content.WriteBlob(w.ctx, w.ContentStore(), desc.Digest.String(), bytes.NewReader(data), desc, content.WithLabels(l)); err != nil {
		w.t.Fatal(err)
	}
	return desc
}

// image makes an image of two overlaybd layers that are nowhere, as after a lazy
// pull, and more fields in its documents than anybody knows. change may change
// both.
func (w *world) image(name string, change func(manifest, config map[string]any)) {
	w.t.Helper()
	var layers []ocispec.Descriptor
	var ids []digest.Digest
	w.recorder.plan = &tracelayer.Plan{}
	for i := range 2 {
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString(strconv.Itoa(i)), Size: 4096}
		d.Annotations = map[string]string{
			labels.BlobDigest: d.Digest.String(), labels.BlobSize: "4096", labels.FSType: "ext4;;",
		}
		layers, ids = append(layers, d), append(ids, d.Digest)
		w.recorder.plan.Layers = append(w.recorder.plan.Layers, tracelayer.PlanLayer{Digest: d.Digest, Size: d.Size})
		w.recorder.plan.Extents = append(w.recorder.plan.Extents, tracelayer.Extent{Layer: i, Size: 1000, Stored: 1000})
	}
	p := platforms.Normalize(platforms.DefaultSpec())
	config := map[string]any{
		"architecture": p.Architecture, "os": p.OS, "variant": p.Variant, "created": "2020-01-01T00:00:00Z",
		"rootfs": ocispec.RootFS{Type: "layers", DiffIDs: ids}, "unknown": 1,
		"history": []any{map[string]any{"created_by": "a", "x": 1}, map[string]any{"created_by": "b"}},
	}
	manifest := map[string]any{
		"schemaVersion": specs.Versioned{SchemaVersion: 2}.SchemaVersion, "mediaType": ocispec.MediaTypeImageManifest,
		"layers": layers, "annotations": map[string]string{"a": "b"}, "unknown": 2,
	}
	if change != nil {
		change(manifest, config)
	}
	manifest["config"] = w.add(ocispec.MediaTypeImageConfig, marshal(w.t, config), nil)
	desc := w.add(ocispec.MediaTypeImageManifest, marshal(w.t, manifest), map[string]string{
		"containerd.io/distribution.source.registry.example.com": "team/app",
		"containerd.io/gc.ref.content.config":                    manifest["config"].(ocispec.Descriptor).Digest.String(),
	})
	if _, err := w.ImageService().Create(w.ctx, images.Image{Name: name, Target: desc}); err != nil {
		w.t.Fatal(err)
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// documents returns the parsed manifest and config of an image, and both as they
// are.
func (w *world) documents(name string) (m ocispec.Manifest, c ocispec.Image, manifest, config map[string]any) {
	w.t.Helper()
	manifestText, configText := w.texts(name)
	for _, err := range []error{
		json.Unmarshal(manifestText, &m), json.Unmarshal(manifestText, &manifest),
		json.Unmarshal(configText, &c), json.Unmarshal(configText, &config),
	} {
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return m, c, manifest, config
}

// texts returns manifest and config of an image.
func (w *world) texts(name string) (manifest, config []byte) {
	w.t.Helper()
	img, err := w.GetImage(w.ctx, name)
	if err != nil {
		w.t.Fatal(err)
	}
	manifest, err = content.ReadBlob(w.ctx, w.ContentStore(), img.Target())
	var m ocispec.Manifest
	if err := errors.Join(err, json.Unmarshal(manifest, &m)); err != nil {
		w.t.Fatal(err)
	}
	if config, err = content.ReadBlob(w.ctx, w.ContentStore(), m.Config); err != nil {
		w.t.Fatal(err)
	}
	return manifest, config
}

// members returns the files of a tar archive in the content store.
func (w *world) members(desc ocispec.Descriptor) map[string]int64 {
	w.t.Helper()
	text, err := content.ReadBlob(w.ctx, w.ContentStore(), desc)
	if err != nil {
		w.t.Fatal(err)
	}
	found := map[string]int64{}
	for r := tar.NewReader(bytes.NewReader(text)); ; {
		h, err := r.Next()
		if err != nil {
			return found
		}
		found[h.Name] = h.Size
	}
}
