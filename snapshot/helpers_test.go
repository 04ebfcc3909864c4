package snapshot_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"

	"github.com/reprise-containers/reprise/snapshot"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

const testRef = "registry.example:5000/team/app:1.2"

// node is a snapshotter with devices that outlive it.
type node struct {
	*snapshot.Snapshotter
	t   *testing.T
	cfg snapshot.Config
	// One of them is in use.
	fake   *fakeDevices
	mounts *mountDevices
	files  *fileDevices
}

func newNode(t *testing.T) *node {
	t.Helper()
	return newNodeWith(t, snapshot.Config{})
}

func newNodeWith(t *testing.T, cfg snapshot.Config) *node {
	t.Helper()
	cfg.Root = filepath.Join(t.TempDir(), "root")
	n := &node{t: t, cfg: cfg, fake: newFake(t)}
	n.start()
	t.Cleanup(func() { n.Close() })
	return n
}

// newMountNode is a node whose devices mount content.
func newMountNode(t *testing.T, content string) *node {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	n := &node{t: t, cfg: snapshot.Config{Root: root}, mounts: newMountDevices(t, root, content, 0)}
	n.start()
	t.Cleanup(func() {
		if err := errors.Join(n.Close(), emptyAndCheck(context.Background(), n.mounts)); err != nil {
			t.Error(err)
		}
	})
	return n
}

func (n *node) start() {
	n.t.Helper()
	var devices snapshot.Devices = n.fake
	switch {
	case n.files != nil:
		devices = n.files
	case n.fake == nil:
		devices = n.mounts
	}
	s, err := snapshot.New(n.t.Context(), n.cfg, devices)
	if err != nil {
		n.t.Fatal(err)
	}
	n.Snapshotter = s
}

// restart ends the snapshotter and starts another on what it left.
func (n *node) restart() {
	n.t.Helper()
	if err := n.Close(); err != nil {
		n.t.Fatal(err)
	}
	n.start()
}

// layerOf makes up the descriptor of a layer: its digest and size.
func layerOf(name string) (digest.Digest, int64) {
	return digest.FromString(name), int64(1000 + len(name))
}

// chainOf returns the chain IDs of the layers with these names.
func chainOf(names ...string) []string {
	var ids []digest.Digest
	for _, n := range names {
		ids = append(ids, digest.FromString(n))
	}
	var out []string
	for _, c := range identity.ChainIDs(ids) {
		out = append(out, c.String())
	}
	return out
}

// unpackLabels returns the labels the unpacker gives layer i of names.
func unpackLabels(names []string, i int, more ...string) map[string]string {
	dgst, size := layerOf(names[i])
	m := map[string]string{
		labels.Target:     chainOf(names[:i+1]...)[i],
		labels.DiffID:     dgst.String(),
		labels.BlobDigest: dgst.String(),
		labels.BlobSize:   fmt.Sprint(size),
		labels.ImageRef:   testRef,
	}
	if i > 0 {
		m[labels.ParentChainID] = chainOf(names[:i]...)[i-1]
	}
	for j := 0; j < len(more); j += 2 {
		m[more[j]] = more[j+1]
		if more[j+1] == "" {
			delete(m, more[j])
		}
	}
	return m
}

// parentOf returns the name of the snapshot that layer i lies on.
func parentOf(names []string, i int) string {
	if i == 0 {
		return ""
	}
	return chainOf(names[:i]...)[i-1]
}

// pullLayer prepares layer i lazily.
func (n *node) pullLayer(names []string, i int, more ...string) error {
	_, err := n.Prepare(n.t.Context(), fmt.Sprintf("extract-%d %s", i, chainOf(names[:i+1]...)[i]), parentOf(names, i),
		snapshots.WithLabels(unpackLabels(names, i, more...)))
	return err
}

// pull provides an image lazily and returns the name of its top snapshot.
func (n *node) pull(names ...string) string {
	n.t.Helper()
	for i := range names {
		if err := n.pullLayer(names, i); !errdefs.IsAlreadyExists(err) {
			n.t.Fatalf("layer %d: %v, want ErrAlreadyExists", i, err)
		}
	}
	return chainOf(names...)[len(names)-1]
}

// run prepares the root of a container.
func (n *node) run(key, image string) []mount.Mount {
	n.t.Helper()
	m, err := n.Prepare(n.t.Context(), key, image)
	if err != nil {
		n.t.Fatal(err)
	}
	return m
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// unpack prepares and commits a layer with the given labels, putting files
// where containerd would.
func (n *node) unpack(name, parent string, lbls, files map[string]string) error {
	n.t.Helper()
	key := "extract-1 " + name
	m, err := n.Prepare(n.t.Context(), key, parent, snapshots.WithLabels(lbls))
	if err != nil {
		return err
	}
	for file, content := range files {
		n.must(os.WriteFile(filepath.Join(upperOf(n.t, m), file), []byte(content), 0o644))
	}
	return n.Commit(n.t.Context(), name, key, snapshots.WithLabels(lbls))
}

// filesOf returns the directory of what is unpacked into, or downloaded for,
// the snapshot name.
func (n *node) filesOf(name string) string {
	n.t.Helper()
	root, err := filepath.EvalSymlinks(n.cfg.Root)
	n.must(err)
	return filepath.Join(root, "snapshots", idOf(n, name), "fs")
}

// upperOf returns the directory that takes the writes of mounts.
func upperOf(t *testing.T, m []mount.Mount) string {
	t.Helper()
	if len(m) == 1 && m[0].Type == "bind" {
		return m[0].Source
	}
	return option(t, m, "upperdir")
}

// option returns the value of an option of the only mount in m.
func option(t *testing.T, m []mount.Mount, key string) string {
	t.Helper()
	if len(m) != 1 {
		t.Fatalf("%d mounts: %v", len(m), m)
	}
	for _, o := range m[0].Options {
		if v, ok := strings.CutPrefix(o, key+"="); ok {
			return v
		}
	}
	t.Fatalf("no option %s in %v", key, m)
	return ""
}

// config returns the configuration files of the snapshot whose mountpoint is target.
func config(t *testing.T, target string) (map[string]any, string) {
	t.Helper()
	block := filepath.Dir(target)
	data, err := os.ReadFile(filepath.Join(block, "config.v1.json"))
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	ref, err := os.ReadFile(filepath.Join(filepath.Dir(block), "image_ref"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return c, string(ref)
}

// clear removes every snapshot, children first.
func clearAll(ctx context.Context, s snapshots.Snapshotter) error {
	for {
		var names []string
		children := map[string]bool{}
		err := s.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
			names = append(names, info.Name)
			children[info.Parent] = true
			return nil
		})
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			if children[name] {
				continue
			}
			if err := s.Remove(ctx, name); err != nil {
				return err
			}
		}
	}
}

// namesWith returns the names of the snapshots that match a filter.
func namesWith(t *testing.T, s snapshots.Snapshotter, filters ...string) (out []string) {
	t.Helper()
	err := s.Walk(t.Context(), func(_ context.Context, info snapshots.Info) error {
		out = append(out, info.Name)
		return nil
	}, filters...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The first bytes of what a layer can be, enough to be recognised.
const (
	lsmtMagic  = "LSMT\x00\x01\x02\x00 and so on"
	zfileMagic = "ZFile\x00\x01\x00 and so on"
)

// checkRefused expects a removal refused because of something in use.
func checkRefused(t *testing.T, err error, says string) {
	t.Helper()
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), says) {
		t.Errorf("%v does not say %s or is of another class", err, says)
	}
}
