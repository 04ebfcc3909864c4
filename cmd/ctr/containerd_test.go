package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/introspection"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/snapshots"
	contentlocal "github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"

	"github.com/reprise-containers/reprise/snapshot/labels"
)

// remoteSnapshotter answers Prepare as a snapshotter that provides overlaybd
// layers does, on top of plain directories, and remembers what it was told.
type remoteSnapshotter struct {
	snapshots.Snapshotter
	mu   sync.Mutex
	told []map[string]string // labels of each Prepare
}

func (s *remoteSnapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	var info snapshots.Info
	for _, o := range opts {
		if err := o(&info); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	s.told = append(s.told, info.Labels)
	s.mu.Unlock()
	mounts, err := s.Snapshotter.Prepare(ctx, key, parent, opts...)
	told, parseErr := labels.Parse(info.Labels)
	if err != nil || parseErr != nil || told.Class() != labels.Lazy {
		return mounts, errors.Join(err, parseErr)
	}
	mark := snapshots.WithLabels(labels.WithRemote(nil))
	if err := s.Commit(ctx, told.Target, key, append(opts, mark)...); err != nil {
		return nil, err
	}
	return nil, errdefs.ErrAlreadyExists
}

// prepared returns the labels of all Prepare calls so far.
func (s *remoteSnapshotter) prepared() []map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told
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

// inProcess returns a client of containerd's own stores and services, without
// a daemon around them. Unpacking mounts, hence root.
func inProcess(t *testing.T) (*containerd.Client, *remoteSnapshotter) {
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
	t.Cleanup(func() { dirs.Close() })
	sn := &remoteSnapshotter{Snapshotter: dirs}
	store, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
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
	return client, sn
}

// newPuller returns a puller as the command line makes one.
func newPuller(client *containerd.Client) puller {
	return puller{
		client: client,
		resolver: docker.NewResolver(docker.ResolverOptions{
			Hosts: docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchAllHosts)),
		}),
		snapshotter: "overlaybd",
	}
}
