package commit_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/reprise-containers/reprise/cmd/internal/commit"
	"github.com/reprise-containers/reprise/cmd/internal/imagestore/imagestoretest"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// tasks has the task of one container, which notes what happens to it.
type tasks struct {
	tasksapi.TasksClient
	status task.Status // unknown: there is no task

	mu     sync.Mutex
	calls  []string
	resume error
}

func (s *tasks) Get(context.Context, *tasksapi.GetRequest, ...grpc.CallOption) (*tasksapi.GetResponse, error) {
	if s.status == task.Status_UNKNOWN {
		return nil, errgrpc.ToGRPC(errdefs.ErrNotFound)
	}
	return &tasksapi.GetResponse{Process: &task.Process{ID: "box", Pid: 1, Status: s.status}}, nil
}

func (s *tasks) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, what)
}

func (s *tasks) Pause(context.Context, *tasksapi.PauseTaskRequest, ...grpc.CallOption) (*emptypb.Empty, error) {
	s.note("pause")
	return &emptypb.Empty{}, nil
}

func (s *tasks) Resume(context.Context, *tasksapi.ResumeTaskRequest, ...grpc.CallOption) (*emptypb.Empty, error) {
	s.note("resume")
	return &emptypb.Empty{}, s.resume
}

// observed notes when files are compared.
type observed struct {
	diff.Comparer
	tasks *tasks
	fail  error
	desc  *ocispec.Descriptor // to be returned
}

func (o observed) Compare(ctx context.Context, lower, upper []mount.Mount, opts ...diff.Opt) (ocispec.Descriptor, error) {
	o.tasks.note("compare")
	if o.fail != nil || o.desc != nil {
		if o.desc == nil {
			o.desc = &ocispec.Descriptor{}
		}
		return *o.desc, o.fail
	}
	return o.Comparer.Compare(ctx, lower, upper, opts...)
}

// told notes the labels of each Prepare.
type told struct {
	snapshots.Snapshotter
	mu     sync.Mutex
	labels map[string]map[string]string // by parent
}

func (s *told) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	var info snapshots.Info
	for _, o := range opts {
		if err := o(&info); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(info.Labels, func(k, _ string) bool { return strings.HasPrefix(k, "containerd.io/gc.") })
	s.labels[key[strings.LastIndexByte(key, '/')+1:]] = info.Labels
	return s.Snapshotter.Prepare(ctx, key, parent, opts...)
}

type world struct {
	*imagestoretest.World
	tasks *tasks
	told  *told
	base  digest.Digest // chain ID
	layer ocispec.Descriptor
}

// newWorld has the container "box" of image app:1, which wrote the file "new".
func newWorld(t *testing.T, change func(manifest, config map[string]any)) *world {
	t.Helper()
	w := &world{tasks: &tasks{}, told: &told{labels: map[string]map[string]string{}}}
	w.World = imagestoretest.New(t, func(s snapshots.Snapshotter) snapshots.Snapshotter { w.told.Snapshotter = s; return w.told },
		containerd.WithTaskClient(w.tasks))
	w.Differ.Comparer = observed{Comparer: w.Differ.Comparer, tasks: w.tasks}
	w.layer = ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("base"), Size: 4096,
		Annotations: map[string]string{labels.BlobDigest: digest.FromString("base").String(), labels.BlobSize: "4096"},
	}
	w.Image("app:1", []ocispec.Descriptor{w.layer}, change)
	w.base = identity.ChainID([]digest.Digest{w.layer.Digest})
	w.snapshot(t, "base", "", w.base.String(), "old")
	w.snapshot(t, "box", w.base.String(), "", "new")
	w.container(t, "app:1")
	return w
}

// snapshot makes a snapshot with one file that is kept.
func (w *world) snapshot(t *testing.T, key, parent, name, file string) {
	t.Helper()
	sn := w.SnapshotService(imagestoretest.Snapshotter)
	kept := snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "yes"})
	mounts, err := sn.Prepare(w.Ctx, key, parent, kept)
	if err == nil {
		err = os.WriteFile(filepath.Join(mounts[0].Source, file), []byte(file), 0o644)
	}
	if err == nil && name != "" {
		err = sn.Commit(w.Ctx, name, key, kept)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) container(t *testing.T, image string) {
	t.Helper()
	spec, err := typeurl.MarshalAny(&specs.Spec{Process: &specs.Process{Args: []string{"sh", "-c", "touch new"}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.ContainerService().Create(w.Ctx, containers.Container{
		ID: "box", Image: image, Snapshotter: imagestoretest.Snapshotter, SnapshotKey: "box", Spec: spec,
		Runtime: containers.RuntimeInfo{Name: "none"},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) config() commit.Config {
	return commit.Config{Client: w.Client, Container: "box", Name: "app:2"}
}

// An ordinary layer on an overlaybd image.
func TestRun(t *testing.T) {
	w := newWorld(t, nil)
	w.tasks.status = task.Status_RUNNING
	cfg := w.config()
	cfg.Message, cfg.Author = "why", "who"
	for _, text := range []string{`CMD ["b"]`, "ENV A=1"} {
		c, err := commit.ParseChange(text)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Changes = append(cfg.Changes, c)
	}
	r, err := commit.Run(w.Ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"pause", "compare", "resume"}; !slices.Equal(w.tasks.calls, want) {
		t.Errorf("%v, want %v", w.tasks.calls, want)
	}
	m, config, kept := w.Documents("app:2")
	if m.MediaType != ocispec.MediaTypeImageManifest || len(m.Layers) != 2 || m.Layers[0].Annotations[labels.BlobSize] != "4096" ||
		m.Layers[1].MediaType != ocispec.MediaTypeImageLayerGzip || m.Layers[1].Digest != r.Layer.Digest || r.Overlaybd {
		t.Errorf("manifest %+v, report %+v", m, r)
	}
	ids := config["rootfs"].(map[string]any)["diff_ids"].([]any)
	history := config["history"].([]any)
	run := config["config"].(map[string]any)
	if len(ids) != 2 || len(history) != 2 || config["unknown"] != 1.0 || config["author"] != "who" || config["created"] == "2020-01-01T00:00:00Z" {
		t.Errorf("config %v", config)
	}
	entry := history[1].(map[string]any)
	if entry["created_by"] != "sh -c touch new" || entry["author"] != "who" || entry["comment"] != "why" || history[0].(map[string]any)["x"] != 1.0 {
		t.Errorf("history %v", history)
	}
	if run["Cmd"].([]any)[0] != "b" || run["Env"].([]any)[0] != "A=1" || run["Healthcheck"] == nil {
		t.Errorf("config %v", run)
	}
	chain := identity.ChainID([]digest.Digest{w.layer.Digest, digest.Digest(ids[1].(string))}).String()
	if kept["containerd.io/gc.ref.snapshot."+imagestoretest.Snapshotter] != chain ||
		kept["containerd.io/distribution.source.registry.example.com"] != "team/app" {
		t.Errorf("labels %v", kept)
	}
	want := map[string]string{labels.Target: chain, labels.DiffID: ids[1].(string), labels.ParentChainID: w.base.String()}
	for key, got := range w.told.labels {
		if strings.Contains(key, chain) && !maps.Equal(got, want) {
			t.Errorf("the snapshot of the new layer was prepared with %v, want %v", got, want)
		}
	}
	// The base, the container and the new image.
	if snaps, _, uploads := w.Collect(); snaps != 3 || uploads != 0 {
		t.Errorf("%d snapshots and %d uploads", snaps, uploads)
	}
	if files := w.files(t, chain); files != "new old" {
		t.Errorf("the new image has the files %q", files)
	}
}

// files returns the names of the files of a snapshot.
func (w *world) files(t *testing.T, name string) string {
	t.Helper()
	sn := w.SnapshotService(imagestoretest.Snapshotter)
	mounts, err := sn.View(w.Ctx, "view", name)
	if err != nil {
		t.Fatal(err)
	}
	defer sn.Remove(w.Ctx, "view") //nolint:errcheck // the next view would fail
	entries, err := os.ReadDir(mounts[0].Source)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

// What the diff service says of a layer is kept, and told to the snapshotter; docker's
// manifests stay docker's, and the trace goes.
func TestRunOverlaybd(t *testing.T) {
	w := newWorld(t, func(manifest, _ map[string]any) { manifest["mediaType"] = images.MediaTypeDockerSchema2Manifest })
	text := []byte(strings.Repeat("\x00", 1024)) // an empty archive
	desc := w.Add(ocispec.MediaTypeImageLayer, text, nil)
	desc.Annotations = labels.Native{Blob: desc.Digest, BlobSize: desc.Size, FSType: "ext4"}.Annotations()
	w.Differ.Comparer = observed{tasks: w.tasks, desc: &desc}
	r, err := commit.Run(w.Ctx, w.config())
	if err != nil {
		t.Fatal(err)
	}
	m, config, _ := w.Documents("app:2")
	if !r.Overlaybd || m.MediaType != images.MediaTypeDockerSchema2Manifest || m.Layers[1].MediaType != ocispec.MediaTypeImageLayer ||
		!maps.Equal(m.Layers[1].Annotations, desc.Annotations) || config["rootfs"].(map[string]any)["diff_ids"].([]any)[1] != desc.Digest.String() {
		t.Errorf("%+v, %+v", r, m)
	}
	chain := identity.ChainID([]digest.Digest{w.layer.Digest, desc.Digest}).String()
	for key, got := range w.told.labels {
		if strings.Contains(key, chain) && (got[labels.BlobDigest] != desc.Digest.String() || got[labels.FSType] != "ext4") {
			t.Errorf("the snapshotter was told %v", got)
		}
	}
}

func TestRunDropsTrace(t *testing.T) {
	w := newWorld(t, nil)
	trace := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("trace"), Size: 1}
	trace.Annotations = labels.TraceBlob{Blob: trace.Digest, BlobSize: 1}.Annotations()
	w.Image("traced:1", []ocispec.Descriptor{w.layer, trace}, nil)
	top := identity.ChainID([]digest.Digest{w.layer.Digest, trace.Digest}).String()
	w.snapshot(t, "trace", w.base.String(), top, "trace")
	w.snapshot(t, "traced", top, "", "new")
	c, err := w.ContainerService().Get(w.Ctx, "box")
	if err != nil {
		t.Fatal(err)
	}
	c.ID, c.Image, c.SnapshotKey = "traced", "traced:1", "traced"
	if _, err := w.ContainerService().Create(w.Ctx, c); err != nil {
		t.Fatal(err)
	}
	cfg := w.config()
	cfg.Container = "traced"
	r, err := commit.Run(w.Ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	m, _, _ := w.Documents("app:2")
	if len(r.Dropped) != 1 || r.Dropped[0] != trace.Digest || len(m.Layers) != 2 || m.Layers[1].Digest != r.Layer.Digest {
		t.Errorf("%+v, %+v", r, m.Layers)
	}
}

// What fails leaves nothing, and the container runs.
func TestRunFails(t *testing.T) {
	for name, c := range map[string]struct {
		status task.Status
		change func(*world, *commit.Config)
		want   string
		calls  []string
	}{
		"compare": {task.Status_RUNNING, func(w *world, _ *commit.Config) {
			w.Differ.Comparer = observed{tasks: w.tasks, fail: errors.New("torn")}
		}, "torn", []string{"pause", "compare", "resume"}},
		"no diff ID": {task.Status_PAUSED, func(w *world, _ *commit.Config) {
			d := w.Add(ocispec.MediaTypeImageLayerGzip, []byte("x"), nil)
			w.Differ.Comparer = observed{tasks: w.tasks, desc: &d}
		}, "diff ID", []string{"compare"}},
		"apply": {task.Status_UNKNOWN, func(w *world, _ *commit.Config) {
			d := w.Add(ocispec.MediaTypeImageLayer, []byte("no archive"), nil)
			w.Differ.Comparer = observed{tasks: w.tasks, desc: &d}
		}, "unpacking", []string{"compare"}},
		"resume":       {task.Status_RUNNING, func(w *world, _ *commit.Config) { w.tasks.resume = errgrpc.ToGRPC(errors.New("gone")) }, "ctr task resume box", []string{"pause", "compare", "resume"}},
		"no container": {task.Status_UNKNOWN, func(_ *world, c *commit.Config) { c.Container = "none" }, "none", nil},
		"other image": {task.Status_UNKNOWN, func(w *world, _ *commit.Config) {
			other := w.layer
			other.Digest = digest.FromString("other")
			w.Image("other:1", []ocispec.Descriptor{other}, nil)
			img, err := w.ImageService().Get(w.Ctx, "other:1")
			if err == nil {
				img.Name = "app:1"
				_, err = w.ImageService().Update(w.Ctx, img, "target")
			}
			if err != nil {
				w.T.Fatal(err)
			}
		}, "tag the image", nil},
		"compression": {task.Status_UNKNOWN, func(_ *world, c *commit.Config) { c.Compression = "lzma" }, "lzma", nil},
		"name":        {task.Status_UNKNOWN, func(_ *world, c *commit.Config) { c.Name = "A B" }, "name", nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.tasks.status = c.status
			cfg := w.config()
			c.change(w, &cfg)
			_, err := commit.Run(w.Ctx, cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if !slices.Equal(w.tasks.calls, c.calls) {
				t.Errorf("%v, want %v", w.tasks.calls, c.calls)
			}
			if _, err := w.ImageService().Get(w.Ctx, "app:2"); !errdefs.IsNotFound(err) {
				t.Errorf("there is an image: %v", err)
			}
			if snaps, _, uploads := w.Collect(); snaps != 2 || uploads != 0 {
				t.Errorf("%d snapshots, %d uploads", snaps, uploads)
			}
		})
	}
}

// With --pause=false the container goes on; an image that has the name loses it.
func TestRunRunning(t *testing.T) {
	w := newWorld(t, func(_, config map[string]any) { delete(config, "history"); delete(config, "config") })
	w.tasks.status = task.Status_RUNNING
	cfg := w.config()
	cfg.Name, cfg.Running, cfg.Compression = "app:1", true, "zstd"
	if _, err := commit.Run(w.Ctx, cfg); err != nil {
		t.Fatal(err)
	}
	m, config, _ := w.Documents("app:1")
	if len(w.tasks.calls) != 1 || len(m.Layers) != 2 || m.Layers[1].MediaType != ocispec.MediaTypeImageLayerZstd || config["history"] != nil {
		t.Errorf("%v, %+v, %v", w.tasks.calls, m, config)
	}
	if _, err := content.ReadBlob(w.Ctx, w.ContentStore(), m.Layers[1]); err != nil {
		t.Error(err)
	}
}
