// Package imagestoretest gives tests containerd's own stores and services, in their
// process and without a daemon around them.
package imagestoretest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/introspection"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	contentlocal "github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// Snapshotter is the name of the only snapshotter.
const Snapshotter = "overlaybd"

// World is a containerd. Its snapshotter is the test's.
type World struct {
	*containerd.Client
	T *testing.T
	// Ctx has the namespace.
	Ctx context.Context
	// Differ is the diff service; a test may change it.
	Differ *Differ

	db *metadata.DB
}

// Differ is a diff service of two halves.
type Differ struct {
	diff.Comparer
	diff.Applier
}

// plugins tells the client that the snapshotter exists.
type plugins struct{ introspection.Service }

func (plugins) Plugins(_ context.Context, filters ...string) (*introspectionapi.PluginsResponse, error) {
	r := &introspectionapi.PluginsResponse{}
	if filters[0] == "type==io.containerd.snapshotter.v1, id=="+Snapshotter {
		r.Plugins = append(r.Plugins, &introspectionapi.Plugin{ID: Snapshotter})
	}
	return r, nil
}

// New returns a world whose snapshots are plain directories, seen through decorate.
// Unpacking mounts, so it skips the test without root. More services may be given.
func New(t *testing.T, decorate func(snapshots.Snapshotter) snapshots.Snapshotter, more ...containerd.ServicesOpt) *World {
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
	store, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		dirs.Close()
		store.Close()
	})
	db := metadata.NewDB(store, cs, map[string]snapshots.Snapshotter{Snapshotter: decorate(dirs)})
	if err := db.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	differ := &Differ{walking.NewWalkingDiff(db.ContentStore()), apply.NewFileSystemApplier(db.ContentStore())}
	services := append([]containerd.ServicesOpt{
		containerd.WithContentStore(db.ContentStore()),
		containerd.WithImageStore(metadata.NewImageStore(db)),
		containerd.WithContainerStore(metadata.NewContainerStore(db)),
		containerd.WithSnapshotters(map[string]snapshots.Snapshotter{Snapshotter: db.Snapshotter(Snapshotter)}),
		containerd.WithLeasesService(metadata.NewLeaseManager(db)),
		containerd.WithDiffService(differ),
		containerd.WithIntrospectionService(plugins{}),
	}, more...)
	client, err := containerd.New("", containerd.WithServices(services...))
	if err != nil {
		t.Fatal(err)
	}
	return &World{Client: client, T: t, Ctx: namespaces.WithNamespace(t.Context(), "test"), Differ: differ, db: db}
}

// Add puts a blob into the content store.
func (w *World) Add(mediaType string, data []byte, labels map[string]string) ocispec.Descriptor {
	w.T.Helper()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := content.WriteBlob(w.Ctx, w.ContentStore(), desc.Digest.String(), bytes.NewReader(data), desc, content.WithLabels(labels)); err != nil {
		w.T.Fatal(err)
	}
	return desc
}

// Image makes an image of layers, and diff IDs that are their digests, with fields in
// its documents that nobody knows. change may change both.
func (w *World) Image(name string, layers []ocispec.Descriptor, change func(manifest, config map[string]any)) {
	w.T.Helper()
	var ids []digest.Digest
	var history []any
	for _, l := range layers {
		ids = append(ids, l.Digest)
		history = append(history, map[string]any{"created_by": "a", "x": 1})
	}
	p := platforms.Normalize(platforms.DefaultSpec())
	config := map[string]any{
		"architecture": p.Architecture, "os": p.OS, "variant": p.Variant, "created": "2020-01-01T00:00:00Z", "author": "somebody",
		"rootfs": ocispec.RootFS{Type: "layers", DiffIDs: ids}, "unknown": 1, "history": history,
		"config": map[string]any{"Cmd": []string{"a"}, "Healthcheck": map[string]any{"Test": []string{"NONE"}}},
	}
	manifest := map[string]any{
		"schemaVersion": specs.Versioned{SchemaVersion: 2}.SchemaVersion, "mediaType": ocispec.MediaTypeImageManifest,
		"layers": layers, "annotations": map[string]string{"a": "b"},
	}
	if change != nil {
		change(manifest, config)
	}
	manifest["config"] = w.Add(ocispec.MediaTypeImageConfig, w.marshal(config), nil)
	labels := map[string]string{
		"containerd.io/distribution.source.registry.example.com": "team/app",
		"containerd.io/gc.ref.content.config":                    manifest["config"].(ocispec.Descriptor).Digest.String(),
	}
	for i, l := range layers {
		labels[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = l.Digest.String()
	}
	desc := w.Add(manifest["mediaType"].(string), w.marshal(manifest), labels)
	if _, err := w.ImageService().Create(w.Ctx, images.Image{Name: name, Target: desc}); err != nil {
		w.T.Fatal(err)
	}
}

func (w *World) marshal(v any) []byte {
	w.T.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		w.T.Fatal(err)
	}
	return text
}

// Documents returns the parsed manifest of an image, its config as it is, and the
// labels of both.
func (w *World) Documents(name string) (m ocispec.Manifest, config map[string]any, kept map[string]string) {
	w.T.Helper()
	img, err := w.ImageService().Get(w.Ctx, name)
	if err != nil {
		w.T.Fatal(err)
	}
	text, err := content.ReadBlob(w.Ctx, w.ContentStore(), img.Target)
	if err := errors.Join(err, json.Unmarshal(text, &m)); err != nil {
		w.T.Fatal(err)
	}
	if m.MediaType != img.Target.MediaType {
		w.T.Errorf("manifest of type %q, described as %q", m.MediaType, img.Target.MediaType)
	}
	text, err = content.ReadBlob(w.Ctx, w.ContentStore(), m.Config)
	if err := errors.Join(err, json.Unmarshal(text, &config)); err != nil {
		w.T.Fatal(err)
	}
	kept = map[string]string{}
	for _, d := range []digest.Digest{img.Target.Digest, m.Config.Digest} {
		info, err := w.ContentStore().Info(w.Ctx, d)
		if err != nil {
			w.T.Fatal(err)
		}
		maps.Copy(kept, info.Labels)
	}
	return m, config, kept
}

// Collect collects garbage and returns how many snapshots and blobs are left, and
// how many uploads have begun.
func (w *World) Collect() (snaps, blobs, uploads int) {
	w.T.Helper()
	if _, err := w.db.GarbageCollect(w.Ctx); err != nil {
		w.T.Fatal(err)
	}
	err := w.SnapshotService(Snapshotter).Walk(w.Ctx, func(context.Context, snapshots.Info) error { snaps++; return nil })
	err = errors.Join(err, w.ContentStore().Walk(w.Ctx, func(content.Info) error { blobs++; return nil }))
	begun, statusErr := w.ContentStore().ListStatuses(w.Ctx)
	if err := errors.Join(err, statusErr); err != nil {
		w.T.Fatal(err)
	}
	return snaps, blobs, len(begun)
}
