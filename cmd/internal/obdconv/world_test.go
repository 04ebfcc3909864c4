package obdconv_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/cmd/internal/imagestore/imagestoretest"
	"github.com/reprise-containers/reprise/cmd/internal/obdconv"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

const deviceSize = 1 << 20

// devices answers as a snapshotter with writable devices does, on top of plain
// directories: the layer that a snapshot becomes holds the names of its files.
type devices struct {
	snapshots.Snapshotter
	dir  string
	fail string // "", "prepare", "commit", "no layer", "bad layer"
	// cancel is called while the second layer is prepared.
	cancel context.CancelFunc

	mu    sync.Mutex
	told  []map[string]string // labels of each Prepare
	seen  []string            // what was in each snapshot when it was committed
	roots map[string]string   // directories of active snapshots
}

func (s *devices) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	var info snapshots.Info
	for _, o := range opts {
		if err := o(&info); err != nil {
			return nil, err
		}
	}
	mounts, err := s.Snapshotter.Prepare(ctx, key, parent, opts...)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, info.Labels)
	if s.fail == "prepare" && parent != "" {
		return nil, errors.Join(errors.New("no device"), s.Remove(ctx, key))
	}
	if s.cancel != nil && parent != "" {
		s.cancel()
	}
	if s.roots == nil {
		s.roots = map[string]string{}
	}
	s.roots[key] = mounts[0].Source
	if parent == "" {
		err = os.Mkdir(filepath.Join(mounts[0].Source, "lost+found"), 0o700)
	}
	return mounts, err
}

func (s *devices) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail == "commit" {
		return errors.New("no room")
	}
	entries, err := os.ReadDir(s.roots[key])
	if err != nil {
		return err
	}
	text := ""
	for _, e := range entries {
		text += e.Name() + " "
	}
	s.seen = append(s.seen, text)
	if s.fail == "no layer" {
		return s.Snapshotter.Commit(ctx, name, key, opts...)
	}
	path := filepath.Join(s.dir, fmt.Sprintf("%d.sealed", len(s.seen)))
	if err := writeLayer(path, text, s.fail == "bad layer"); err != nil {
		return err
	}
	return s.Snapshotter.Commit(ctx, name, key, append(opts, snapshots.WithLabels(map[string]string{labels.LocalCommit: path}))...)
}

// writeLayer writes a layer with a text at the start of the device.
func writeLayer(path, text string, bad bool) error {
	var b bytes.Buffer
	c, err := lsmt.NewCommitter(&b, lsmt.Identity{VirtualSize: deviceSize})
	if err == nil {
		err = c.Data(0, append([]byte(text), make([]byte, 512-len(text))...))
	}
	if err == nil {
		err = c.Finish()
	}
	if bad {
		b.Truncate(100)
	}
	return errors.Join(err, os.WriteFile(path, b.Bytes(), 0o600))
}

// world is containerd with such a snapshotter.
type world struct {
	*imagestoretest.World
	devices *devices
	temp    string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	d := &devices{dir: t.TempDir()}
	w := imagestoretest.New(t, func(s snapshots.Snapshotter) snapshots.Snapshotter { d.Snapshotter = s; return d })
	return &world{w, d, t.TempDir()}
}

// config returns how app:1 is converted to app:2.
func (w *world) config() obdconv.Config {
	return obdconv.Config{
		Client: w.Client, Source: "app:1", Target: "app:2", Snapshotter: imagestoretest.Snapshotter, TempDir: w.temp,
	}
}

// archive puts an ordinary layer with one file into the content store, compressed or
// not, and returns its descriptor and diff ID.
func (w *world) archive(name string, compressed bool) (ocispec.Descriptor, digest.Digest) {
	w.T.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: 1})
	if err == nil {
		_, err = tw.Write([]byte("x"))
	}
	if err := errors.Join(err, tw.Close()); err != nil {
		w.T.Fatal(err)
	}
	id := digest.FromBytes(b.Bytes())
	if !compressed {
		return w.Add(ocispec.MediaTypeImageLayer, b.Bytes(), nil), id
	}
	var z bytes.Buffer
	gz := gzip.NewWriter(&z)
	_, err = gz.Write(b.Bytes())
	if err := errors.Join(err, gz.Close()); err != nil {
		w.T.Fatal(err)
	}
	return w.Add(ocispec.MediaTypeImageLayerGzip, z.Bytes(), nil), id
}

// same compares values of JSON.
func same(a, b any) bool { return reflect.DeepEqual(a, b) }
