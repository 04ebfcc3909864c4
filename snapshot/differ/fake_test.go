package differ_test

import (
	"bytes"
	"context"
	"io"
	"maps"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
)

const deviceSize = 1 << 20 // bytes

// fakeSnapshots knows one snapshot: a writable device if device is set, one that
// lies on an image with overlayfs if image is.
type fakeSnapshots struct {
	t      *testing.T
	device []byte // what was written at the begin of it
	fsType string // of device
	image  *backstore.Image
	base   map[string]string // files of image, that a new device over it has

	filled map[string]string // what Scratch has seen on the device
	during func(dir string)  // called by Scratch before it
	placed []byte
	fail   error // of Place
}

// Difference implements differ.Snapshots.
func (f *fakeSnapshots) Difference(ctx context.Context, _, _ []mount.Mount, use func(context.Context, *lsmt.Layer, string) error) error {
	if f.device == nil {
		return notImplemented
	}
	return f.layer(ctx, f.device, f.fsType, use)
}

// Overlaid implements differ.Snapshots.
func (f *fakeSnapshots) Overlaid(context.Context, []mount.Mount, []mount.Mount) (backstore.Image, error) {
	if f.image == nil {
		return backstore.Image{}, notImplemented
	}
	return *f.image, nil
}

// Scratch implements differ.Snapshots. The device is a directory, and its layer the
// names in there.
func (f *fakeSnapshots) Scratch(ctx context.Context, img backstore.Image, fill func(context.Context, string) error,
	use func(context.Context, *lsmt.Layer, string) error,
) error {
	dir := tree(f.t, f.base)[0].Source
	if f.during != nil {
		f.during(dir)
	}
	if err := fill(ctx, dir); err != nil {
		return err
	}
	f.filled = contents(f.t, dir)
	return f.layer(ctx, []byte("the files"), img.FSType, use)
}

// Place implements differ.Snapshots.
func (f *fakeSnapshots) Place(_ context.Context, _ []mount.Mount, r io.Reader) error {
	if f.fail != nil {
		return f.fail
	}
	var err error
	f.placed, err = io.ReadAll(r)
	return err
}

// layer calls use with the layer of a writable device.
func (f *fakeSnapshots) layer(ctx context.Context, data []byte, fsType string, use func(context.Context, *lsmt.Layer, string) error) error {
	dir := f.t.TempDir()
	files := lsmt.UpperFiles{Data: filepath.Join(dir, "data"), Index: filepath.Join(dir, "index")}
	if err := lsmt.CreateUpper(files, lsmt.UpperOptions{Identity: lsmt.Identity{VirtualSize: deviceSize}}); err != nil {
		return err
	}
	u, err := lsmt.OpenUpper(ctx, files, nil)
	if err != nil {
		return err
	}
	defer u.Close()
	if _, err := u.WriteAt(ctx, sector(data), 0); err != nil {
		return err
	}
	l, release, err := u.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer release()
	return use(ctx, l, fsType)
}

// sector returns data, filled up.
func sector(data []byte) []byte { return append(bytes.Clone(data), make([]byte, 512-len(data))...) }

// with returns a copy of files with more.
func with(files map[string]string, more map[string]string) map[string]string {
	all := maps.Clone(files)
	maps.Copy(all, more)
	return all
}
