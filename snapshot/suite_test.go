package snapshot_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"

	"github.com/reprise-containers/reprise/snapshot"
)

// suiteName tells the suite that overlayfs does not rename lower directories.
const suiteName = "overlayfs"

// TestSuite runs containerd's conformance suite on ordinary snapshots.
func TestSuite(t *testing.T) {
	needRoot(t)
	inMemory(t)
	content := t.TempDir()
	testsuite.SnapshotterSuite(t, suiteName, func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		d := newMountDevices(t, root, content, 0)
		s, err := snapshot.New(ctx, snapshot.Config{Root: root}, d)
		if err != nil {
			return nil, nil, err
		}
		return s, func() error { return errors.Join(s.Close(), emptyAndCheck(ctx, d)) }, nil
	})
}

// TestSuiteOnImage runs it with every chain of snapshots on top of an image
// whose devices fail at every n-th call, or never.
func TestSuiteOnImage(t *testing.T) {
	needRoot(t)
	inMemory(t)
	content := t.TempDir()
	for nth := range 6 {
		t.Run(fmt.Sprint("fails ", nth), func(t *testing.T) {
			testsuite.SnapshotterSuite(t, suiteName, func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
				return newOnImage(ctx, newMountDevices(t, root, content, nth))
			})
		})
	}
}

const baseName = "the image below everything"

// onImage is a snapshotter whose snapshots without parent lie on an image that
// is otherwise invisible. It repeats what fails because devices do, and checks
// that nothing is left of each failure.
type onImage struct {
	*snapshot.Snapshotter
	devices *mountDevices
}

func newOnImage(ctx context.Context, d *mountDevices) (snapshots.Snapshotter, func() error, error) {
	s, err := snapshot.New(ctx, snapshot.Config{Root: d.root}, d)
	if err != nil {
		return nil, nil, err
	}
	lbls := unpackLabels([]string{"base"}, 0)
	lbls["containerd.io/snapshot.ref"] = baseName
	if _, err := s.Prepare(ctx, "extract", "", snapshots.WithLabels(lbls)); !errdefs.IsAlreadyExists(err) {
		return nil, nil, err
	}
	o := &onImage{s, d}
	return o, func() error { return errors.Join(s.Close(), emptyAndCheck(ctx, d)) }, nil
}

// emptyAndCheck starts a snapshotter on what another left, as after a crash,
// removes everything, and reports what is still there.
func emptyAndCheck(ctx context.Context, d *mountDevices) error {
	s, err := snapshot.New(ctx, snapshot.Config{Root: d.root}, d)
	if err != nil {
		return err
	}
	defer s.Close()
	o := &onImage{s, d}
	err = o.again(ctx, func(ctx context.Context) error { return clearAll(ctx, s) })
	if err == nil {
		err = o.again(ctx, s.Cleanup)
	}
	if err != nil {
		return err
	}
	left, err := d.leaks()
	for _, dir := range []string{"snapshots", "new"} {
		entries, _ := filepath.Glob(filepath.Join(d.root, dir, "*"))
		left = append(left, entries...)
	}
	if len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("left behind: %v", left))
	}
	return err
}

// again calls fn until it does not fail by injection.
func (o *onImage) again(ctx context.Context, fn func(context.Context) error) error {
	for range 100 {
		err := fn(ctx)
		if !errors.Is(err, errInjected) {
			return err
		}
		if err := o.checkDirectories(ctx); err != nil {
			return err
		}
		// Every attach would fail for ever; with 2 because each that fails is
		// followed by a detach.
		if o.devices.nth <= 2 {
			ctx = context.WithValue(ctx, always{}, true)
		}
	}
	return errors.New("a hundred failures in a row")
}

// checkDirectories compares the directories with the metastore.
func (o *onImage) checkDirectories(ctx context.Context) error {
	snaps := 0
	if err := o.Snapshotter.Walk(ctx, func(context.Context, snapshots.Info) error { snaps++; return nil }); err != nil {
		return err
	}
	dirs, err := os.ReadDir(filepath.Join(o.devices.root, "snapshots"))
	staged, err2 := os.ReadDir(filepath.Join(o.devices.root, "new"))
	if len(dirs) != snaps || len(staged) > 0 {
		return fmt.Errorf("after a failure: %d snapshots, %d directories, %d staged", snaps, len(dirs), len(staged))
	}
	return errors.Join(err, err2)
}

func below(parent string) string {
	if parent == "" {
		return baseName
	}
	return parent
}

func hide(info snapshots.Info) snapshots.Info {
	if info.Parent == baseName {
		info.Parent = ""
	}
	return info
}

func (o *onImage) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) (m []mount.Mount, err error) {
	err = o.again(ctx, func(ctx context.Context) error {
		m, err = o.Snapshotter.Prepare(ctx, key, below(parent), opts...)
		return err
	})
	return m, err
}

func (o *onImage) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) (m []mount.Mount, err error) {
	err = o.again(ctx, func(ctx context.Context) error {
		m, err = o.Snapshotter.View(ctx, key, below(parent), opts...)
		return err
	})
	return m, err
}

func (o *onImage) Mounts(ctx context.Context, key string) (m []mount.Mount, err error) {
	err = o.again(ctx, func(ctx context.Context) error {
		m, err = o.Snapshotter.Mounts(ctx, key)
		return err
	})
	return m, err
}

func (o *onImage) Remove(ctx context.Context, key string) error {
	return o.again(ctx, func(ctx context.Context) error { return o.Snapshotter.Remove(ctx, key) })
}

func (o *onImage) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	info, err := o.Snapshotter.Stat(ctx, key)
	return hide(info), err
}

func (o *onImage) Update(ctx context.Context, info snapshots.Info, paths ...string) (snapshots.Info, error) {
	info, err := o.Snapshotter.Update(ctx, info, paths...)
	return hide(info), err
}

func (o *onImage) Walk(ctx context.Context, fn snapshots.WalkFunc, fs ...string) error {
	return walkOnBase(ctx, o.Snapshotter, fn, fs)
}

// walkOnBase walks s without the image below everything. It filters by itself: the
// filters are not to see the image either.
func walkOnBase(ctx context.Context, s *snapshot.Snapshotter, fn snapshots.WalkFunc, fs []string) error {
	filter, err := filters.ParseAll(fs...)
	if err != nil {
		return err
	}
	return s.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		info = hide(info)
		if info.Name == baseName || !filter.Match(field(info)) {
			return nil
		}
		return fn(ctx, info)
	})
}

func field(info snapshots.Info) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		switch path[0] {
		case "name":
			return info.Name, true
		case "parent":
			return info.Parent, info.Parent != ""
		case "kind":
			return strings.ToLower(info.Kind.String()), true
		case "labels":
			v, ok := info.Labels[strings.Join(path[1:], ".")]
			return v, ok
		}
		return "", false
	})
}
