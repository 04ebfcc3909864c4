package snapshot_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/unpack"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/snapshotters"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// golden returns the folder with images made by upstream's tools.
func golden(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			images := filepath.Join(dir, "..", "shared", "golden", "images")
			if _, err := os.Stat(images); err == nil {
				return images
			}
		}
		dir = filepath.Dir(dir)
	}
	t.Skip("the golden images are not here")
	return ""
}

// containerd is its content store, metadata store, unpacker and applier,
// around a node.
type containerd struct {
	*node
	db       *metadata.DB
	manifest ocispec.Descriptor

	mu      sync.Mutex
	fetched []digest.Digest // layers the unpacker asked for
}

func newContainerd(t *testing.T, image string) *containerd {
	t.Helper()
	c := &containerd{node: newNode(t)}
	dir := t.TempDir()
	store, err := local.NewStore(filepath.Join(dir, "content"))
	c.must(err)
	db, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, nil)
	c.must(err)
	t.Cleanup(func() { db.Close() })
	c.db = metadata.NewDB(db, store, map[string]snapshots.Snapshotter{"overlaybd": c.Snapshotter})
	c.must(c.db.Init(t.Context()))

	index, err := os.ReadFile(filepath.Join(image, "index.json"))
	c.must(err)
	var i ocispec.Index
	c.must(json.Unmarshal(index, &i))
	c.manifest = i.Manifests[0]
	c.importInto("ns", image)
	return c
}

// importInto puts all blobs of an image into the content store.
func (c *containerd) importInto(ns, image string) {
	c.t.Helper()
	ctx := namespaces.WithNamespace(c.t.Context(), ns)
	blobs, err := filepath.Glob(filepath.Join(image, "blobs", "sha256", "*"))
	c.must(err)
	for _, b := range blobs {
		f, err := os.Open(b)
		c.must(err)
		st, err := f.Stat()
		c.must(err)
		d := digest.NewDigestFromEncoded(digest.SHA256, filepath.Base(b))
		desc := ocispec.Descriptor{Digest: d, Size: st.Size()}
		c.must(content.WriteBlob(ctx, c.db.ContentStore(), d.String(), f, desc,
			content.WithLabels(map[string]string{"containerd.io/gc.root": "test"})))
		f.Close()
	}
}

// pull unpacks the image as a pull does, and returns its chain IDs.
func (c *containerd) pullImage(ns string, wrap func(images.Handler) images.Handler, lbls map[string]string) ([]string, error) {
	ctx := namespaces.WithNamespace(c.t.Context(), ns)
	cs := c.db.ContentStore()
	u, err := unpack.NewUnpacker(ctx, cs, unpack.WithUnpackPlatform(unpack.Platform{
		Platform:       platforms.All,
		SnapshotterKey: "overlaybd",
		Snapshotter:    c.db.Snapshotter("overlaybd"),
		SnapshotOpts:   []snapshots.Opt{snapshots.WithLabels(lbls)},
		Applier:        apply.NewFileSystemApplier(cs),
	}))
	if err != nil {
		return nil, err
	}
	children := images.ChildrenHandler(cs)
	handler := images.Handler(images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if images.IsLayerType(desc.MediaType) {
			c.mu.Lock()
			c.fetched = append(c.fetched, desc.Digest)
			c.mu.Unlock()
		}
		return children(ctx, desc)
	}))
	if wrap != nil {
		handler = wrap(handler)
	}
	err = images.Dispatch(ctx, u.Unpack(handler), nil, c.manifest)
	if _, waitErr := u.Wait(); err == nil {
		err = waitErr
	}
	if err != nil {
		return nil, err
	}
	diffIDs, err := images.RootFS(ctx, cs, c.config(ctx))
	if err != nil {
		return nil, err
	}
	var chain []string
	for _, id := range identity.ChainIDs(diffIDs) {
		chain = append(chain, id.String())
	}
	return chain, nil
}

func (c *containerd) config(ctx context.Context) ocispec.Descriptor {
	c.t.Helper()
	m, err := images.Manifest(ctx, c.db.ContentStore(), c.manifest, nil)
	c.must(err)
	return m.Config
}

// attached runs a container and returns the image below it.
func (c *containerd) attached(ns, top string) backstore.Image {
	c.t.Helper()
	ctx := namespaces.WithNamespace(c.t.Context(), ns)
	m, err := c.db.Snapshotter("overlaybd").Prepare(ctx, "container", top)
	c.must(err)
	return c.fake.image(option(c.t, m, "lowerdir"))
}

// TestUnpacker lets containerd's own unpacker and metadata store pull images
// made by upstream's tools, in each way a client can label the pull.
func TestUnpacker(t *testing.T) {
	images := golden(t)
	const ref = "registry.example/golden:1"
	for _, image := range []struct {
		name    string
		layers  int
		trace   bool
		fsType  string
		fetches int // of a lazy pull
	}{
		{"busybox-obd", 3, false, "ext4", 0},
		{"busybox-obd-zstd", 3, false, "", 0},
		{"busybox-obd-trace", 3, true, "ext4", 1},
	} {
		all := image.layers
		if image.trace {
			all++
		}
		for _, client := range []struct {
			name    string
			labels  map[string]string
			cri     bool
			local   bool
			fetches int
			root    bool
		}{
			{"rpull", map[string]string{labels.ImageRef: ref}, false, false, image.fetches, image.trace},
			{"CRI", nil, true, false, image.fetches, image.trace},
			{"download", map[string]string{labels.ImageRef: ref, labels.Download: "download"}, false, true, all, true},
			{"plain", nil, false, true, all, true},
		} {
			t.Run(image.name+"/"+client.name, func(t *testing.T) {
				if client.root {
					needRoot(t)
				}
				c := newContainerd(t, filepath.Join(images, image.name))
				wrap := snapshotters.AppendInfoHandlerWrapper(ref)
				if !client.cri {
					wrap = nil
				}
				chain, err := c.pullImage("ns", wrap, client.labels)
				c.must(err)
				if len(c.fetched) != client.fetches {
					t.Errorf("fetched %v, want %d layers", c.fetched, client.fetches)
				}
				img := c.attached("ns", chain[len(chain)-1])
				if len(img.Layers) != image.layers || img.FSType != image.fsType || (img.Trace != nil) != image.trace {
					t.Errorf("attached %+v", img)
				}
				for i, l := range img.Layers {
					if l.Remote() == client.local {
						t.Errorf("layer %d is %+v", i, l)
					}
				}
				if image.trace {
					checkTrace(t, img.Trace.Dir)
				}
				if !client.local && img.Ref != ref {
					t.Errorf("reference %q", img.Ref)
				}
			})
		}
	}
}

// checkTrace looks for the header of a trace file.
func checkTrace(t *testing.T, dir string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "trace"))
	if err != nil || !strings.HasPrefix(string(data), "\x20\x18\xef\xc2") {
		t.Errorf("trace of %d bytes, %v", len(data), err)
	}
}

// TestNamespaces: what one namespace pulled lazily serves another, and goes
// when neither needs it.
func TestNamespaces(t *testing.T) {
	image := filepath.Join(golden(t), "busybox-obd")
	c := newContainerd(t, image)
	c.importInto("other", image)
	lbls := map[string]string{labels.ImageRef: "registry.example/golden:1"}
	var chain []string
	for _, ns := range []string{"ns", "other"} {
		var err error
		chain, err = c.pullImage(ns, nil, lbls)
		c.must(err)
		if img := c.attached(ns, chain[2]); len(img.Layers) != 3 {
			t.Errorf("attached %+v", img)
		}
	}
	if got := namesWith(t, c, "kind==committed"); len(got) != 3 {
		t.Errorf("snapshots %v, want three for both namespaces", got)
	}
	if got := c.fake.targets(); len(got) != 1 {
		t.Errorf("images at %v", got)
	}

	// Nothing refers to the snapshots of the namespaces but their containers.
	for _, ns := range []string{"ns", "other"} {
		ctx := namespaces.WithNamespace(t.Context(), ns)
		c.must(c.db.Snapshotter("overlaybd").Remove(ctx, "container"))
		for i := range chain {
			c.must(c.db.Snapshotter("overlaybd").Remove(ctx, chain[len(chain)-1-i]))
		}
	}
	_, err := c.db.GarbageCollect(t.Context())
	c.must(err)
	if got := names(t, c); len(got) != 0 || len(c.fake.targets()) != 0 {
		t.Errorf("after garbage collection: snapshots %v, images at %v", got, c.fake.targets())
	}
	checkNothingLeft(t, c.cfg.Root)
}
