package differ_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	contentlocal "github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/snapshot/differ"
)

// TestMain lets the test program be the process that compares, too.
func TestMain(m *testing.M) {
	if code, ok := differ.Child(os.Args); ok {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// world is a Differ with a real content store, and with snapshots that stand in for
// the snapshotter, whose own tests have the real one.
type world struct {
	t     *testing.T
	ctx   context.Context //nolint:containedctx // of the test, with a namespace
	store content.Store
	kept  int // calls of Keep
	temp  string
	snaps *fakeSnapshots
	cfg   differ.Config
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	cs, err := contentlocal.NewStore(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	m := metadata.NewDB(db, cs, nil)
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, ctx: namespaces.WithNamespace(t.Context(), "test"), store: m.ContentStore(),
		temp: filepath.Join(dir, "temp"), snaps: &fakeSnapshots{t: t},
	}
	if err := os.Mkdir(w.temp, 0o700); err != nil {
		t.Fatal(err)
	}
	w.cfg = differ.Config{
		Containerd: w, Compression: zfile.Options{Algorithm: zfile.LZ4, BlockSize: 4096}, Temp: w.temp,
		Command: []string{"/proc/self/exe"},
	}
	t.Cleanup(func() {
		if left, err := os.ReadDir(w.temp); err != nil || len(left) > 0 {
			t.Errorf("left in the directory for temporary files: %v, %v", left, err)
		}
	})
	return w
}

// Content implements differ.Containerd.
func (w *world) Content(ctx context.Context) (context.Context, content.Store, error) {
	return namespaces.WithNamespace(ctx, "test"), w.store, nil
}

// Keep implements differ.Containerd.
func (w *world) Keep(ctx context.Context) (context.Context, error) {
	w.kept++
	return ctx, nil
}

func (w *world) differ() *differ.Differ { return differ.New(w.snaps, w.cfg) }

// blob returns a blob of the content store, and its labels.
func (w *world) blob(desc ocispec.Descriptor) ([]byte, map[string]string) {
	w.t.Helper()
	data, err := content.ReadBlob(w.ctx, w.store, desc)
	if err != nil {
		w.t.Fatal(err)
	}
	info, err := w.store.Info(w.ctx, desc.Digest)
	if err != nil || info.Size != desc.Size || digest.FromBytes(data) != desc.Digest {
		w.t.Fatalf("%+v, %v; want what %+v describes", info, err, desc)
	}
	return data, info.Labels
}

// checkNothingStored checks that the content store is empty.
func (w *world) checkNothingStored() {
	w.t.Helper()
	err := w.store.Walk(w.ctx, func(i content.Info) error { return errors.New(i.Digest.String()) })
	pending, pendingErr := w.store.ListStatuses(w.ctx)
	if err != nil || pendingErr != nil || len(pending) > 0 {
		w.t.Errorf("stored: %v; being stored: %v, %v", err, pending, pendingErr)
	}
}

// tree makes a directory with these files, and returns a mount of it. Names that
// end in a slash are directories.
func tree(t *testing.T, files map[string]string) []mount.Mount {
	t.Helper()
	dir := t.TempDir()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if name[len(name)-1] == '/' {
			continue
		}
		if err := os.WriteFile(path, []byte(files[name]), 0o644); err != nil {
			t.Fatal(err)
		}
		// Without a fraction of a second, contents are compared, too.
		if err := os.Chtimes(path, time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
	}
	return []mount.Mount{{Type: "bind", Source: dir, Options: []string{"rbind"}}}
}

// contents returns the files below a directory, and the directories without any, as
// tree takes them.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		delete(files, filepath.Dir(name)+"/")
		if d.IsDir() {
			files[name+"/"] = ""
			return nil
		}
		data, err := os.ReadFile(path)
		files[name] = string(data)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return files
}

// needRoot skips a test where directories can't be mounted.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting takes root")
	}
}

// notImplemented is what the snapshotter says of mounts that are not what is asked for.
var notImplemented = errdefs.ErrNotImplemented.WithMessage("not of overlaybd devices")
