package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/attach"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// fileDevices is a Writer without kernel: its devices are the files of their
// writable layers, which tests write to. What lies below is not looked at.
type fileDevices struct {
	*fakeDevices
	readOnly bool // the file system in every image

	umu    sync.Mutex
	uppers map[string]*lsmt.Upper            // by id
	images map[string]backstore.Image        // by id
	opts   map[string]attach.WritableOptions // by id
}

func newFileDevices(t *testing.T) *fileDevices {
	return &fileDevices{fakeDevices: newFake(t), uppers: map[string]*lsmt.Upper{}, images: map[string]backstore.Image{}, opts: map[string]attach.WritableOptions{}}
}

func (f *fileDevices) AttachWritable(ctx context.Context, id string, img backstore.Image, opts attach.WritableOptions) (l attach.LoopDevice, err error) {
	err = f.begin(ctx, "write", id)
	defer func() { f.mu.Lock(); f.end(id) }()
	if err != nil {
		return l, err
	}
	if f.readOnly && len(img.Layers) > 0 {
		return l, fmt.Errorf("looking: %w", attach.ErrReadOnlyFS)
	}
	f.umu.Lock()
	defer f.umu.Unlock()
	if f.uppers[id] == nil {
		if f.uppers[id], err = openUpper(ctx, *img.Upper, *opts.Create); err != nil {
			delete(f.uppers, id)
			return l, err
		}
	}
	f.images[id], f.opts[id] = img, opts
	if opts.Target == "" {
		l = attach.LoopDevice{Dev: "/dev/fake-" + id, FSType: "ext4"}
	}
	return l, nil
}

// openUpper opens a writable layer, and makes it if it is not there.
func openUpper(ctx context.Context, files lsmt.UpperFiles, create lsmt.UpperOptions) (*lsmt.Upper, error) {
	for _, file := range []string{files.Data, files.Index} {
		if _, err := os.Stat(file); err == nil {
			continue
		}
		if err := errors.Join(os.RemoveAll(files.Data), os.RemoveAll(files.Index)); err != nil {
			return nil, err
		}
		create.VirtualSize = max(create.VirtualSize, 1<<20)
		if err := lsmt.CreateUpper(files, create); err != nil {
			return nil, err
		}
	}
	return lsmt.OpenUpper(ctx, files, nil)
}

func (f *fileDevices) Detach(ctx context.Context, id, target string) error {
	err := f.fakeDevices.Detach(ctx, id, target)
	if err == nil {
		err = f.close(id)
	}
	return err
}

func (f *fileDevices) close(id string) error {
	f.umu.Lock()
	defer f.umu.Unlock()
	u := f.uppers[id]
	delete(f.uppers, id)
	if u == nil {
		return nil
	}
	return u.Close()
}

func (f *fileDevices) Device(_ context.Context, id string, _ backstore.Image) (attach.LoopDevice, error) {
	return attach.LoopDevice{Dev: "/dev/fake-" + id, FSType: "ext4"}, nil
}

func (f *fileDevices) Freeze(ctx context.Context, id string, during func(ctx context.Context, l *lsmt.Layer) error) error {
	l, release, err := f.upper(id).Snapshot(ctx)
	if err != nil {
		return err
	}
	defer release()
	return during(ctx, l)
}

func (f *fileDevices) LoopID(string) (string, error) { return "", nil }
func (f *fileDevices) FSType(string) (string, error) { return "ext4", nil }

func (f *fileDevices) upper(id string) *lsmt.Upper {
	f.umu.Lock()
	defer f.umu.Unlock()
	return f.uppers[id]
}

// reboot loses everything but files.
func (f *fileDevices) reboot() error {
	f.fakeDevices.reboot()
	f.umu.Lock()
	defer f.umu.Unlock()
	var errs []error
	for id, u := range f.uppers {
		errs = append(errs, u.Close())
		delete(f.uppers, id)
	}
	return errors.Join(errs...)
}

// newFileNode is a node whose devices are files.
func newFileNode(t *testing.T, w snapshot.Writable) *node {
	t.Helper()
	n := &node{t: t, cfg: snapshot.Config{Root: filepath.Join(t.TempDir(), "root"), Writable: w}, files: newFileDevices(t)}
	n.fake = n.files.fakeDevices
	n.start()
	t.Cleanup(func() {
		if err := errors.Join(n.Close(), n.files.reboot()); err != nil {
			t.Error(err)
		}
	})
	return n
}

// prepareDir prepares a snapshot with a device and returns its id.
func (n *node) prepareDir(key, parent string) (id string) {
	n.t.Helper()
	m, err := n.Prepare(n.t.Context(), key, parent, writableLabels("dir"))
	n.must(err)
	return deviceID(n.t, m)
}

// deviceID returns the id of the snapshot whose mounted device m binds.
func deviceID(t *testing.T, m []mount.Mount) string {
	t.Helper()
	if len(m) != 1 || m[0].Type != "bind" || filepath.Base(m[0].Source) != "mountpoint" {
		t.Fatalf("mounts %v are not of a device", m)
	}
	return filepath.Base(filepath.Dir(filepath.Dir(m[0].Source)))
}

const blockSize = 4096

// block is what block i of a device is to hold.
func block(i int) []byte { return bytes.Repeat([]byte{byte(i%255 + 1)}, blockSize) }

// write writes blocks to the device of snapshot id, durably.
func (f *fileDevices) write(ctx context.Context, id string, blocks ...int) error {
	u := f.upper(id)
	if u == nil {
		return fmt.Errorf("device %s is not attached", id)
	}
	for _, i := range blocks {
		if _, err := u.WriteAt(ctx, block(i), int64(i)*blockSize); err != nil {
			return err
		}
	}
	return u.Flush(ctx)
}

// checkBlocks compares the first blocks of r with those that were written.
func checkBlocks(ctx context.Context, r blob.ReaderAt, written ...int) error {
	is := map[int]bool{}
	for _, i := range written {
		is[i] = true
	}
	for i := range 32 {
		want, got := make([]byte, blockSize), make([]byte, blockSize)
		if is[i] {
			want = block(i)
		}
		if _, err := r.ReadAt(ctx, got, int64(i)*blockSize); err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("block %d begins with %x, want %x", i, got[:8], want[:8])
		}
	}
	return nil
}

// checkLayer compares the topmost layer of the committed snapshot name with what
// was written, and expects nothing left of the writable one.
func checkLayer(ctx context.Context, s *snapshot.Snapshotter, name string, written ...int) error {
	info, err := s.Stat(ctx, name)
	if err != nil {
		return err
	}
	path := info.Labels[labels.LocalCommit]
	if filepath.Base(path) != "overlaybd.sealed" || info.Labels[labels.Writable] != "" {
		return fmt.Errorf("labels of %s: %v", name, info.Labels)
	}
	f, err := blob.OpenFile(path)
	if err != nil {
		return err
	}
	defer f.Close()
	l, err := backstore.OpenLayer(ctx, f)
	if err != nil {
		return err
	}
	image, err := lsmt.Stack([]*lsmt.Layer{l})
	if err == nil {
		err = checkBlocks(ctx, image, written...)
	}
	if err != nil {
		return fmt.Errorf("layer of %s: %w", name, err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(path)), "block", "writable*"))
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%s has %v", name, left)
	}
	return err
}
