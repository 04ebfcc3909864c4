package snapshot_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/snapshot"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// TestWritableMode prepares snapshots in all modes on all that can lie below, and
// looks at what kind of mount they get: "overlay", "bind" of a directory, "device",
// "mounted device", or the class of the error.
func TestWritableMode(t *testing.T) {
	for _, c := range []struct {
		mode, key, parent string
		labels            []string
		readOnly          bool
		want              string
	}{
		{mode: "overlayfs", parent: "image", want: "overlay"},
		{mode: "dir", parent: "image", want: "mounted device"},
		{mode: "dev", parent: "image", want: "device"},
		{mode: "overlayfs", parent: "image", labels: []string{labels.Writable, "dir"}, want: "mounted device"},
		{mode: "dir", parent: "image", labels: []string{labels.Writable, "dev"}, want: "device"},
		{mode: "dev", parent: "image", labels: []string{labels.Writable, "no"}, want: "overlay"},
		// Nothing below: only a label makes a device, as one prepares who makes images.
		{mode: "dir", want: "bind"},
		{mode: "overlayfs", labels: []string{labels.Writable, "dir"}, want: "mounted device"},
		// Files below: BuildKit asks for a device whatever its base is.
		{mode: "dir", parent: "files", want: "overlay"},
		{mode: "overlayfs", parent: "files", labels: []string{labels.Writable, "dev"}, want: "overlay"},
		{mode: "dir", parent: "files on image", labels: []string{labels.Writable, "dev"}, want: "overlay"},
		// Layers of an image and steps of a build do not follow the node.
		{mode: "dir", key: "extract-7 x", parent: "image", want: "overlay"},
		{mode: "dir", parent: "image", labels: []string{labels.Target, "x"}, want: "overlay"},
		{mode: "dir", parent: "image", labels: []string{labels.Type, "image"}, want: "overlay"},
		{mode: "dir", key: "extract-7 x", parent: "image", labels: []string{labels.Writable, "dir"}, want: "mounted device"},
		{mode: "dir", parent: "image", labels: []string{labels.Type, "image", labels.Writable, "dev"}, want: "device"},
		// A recording is made of overlayfs.
		{mode: "dir", parent: "image", labels: []string{labels.RecordTrace, "yes"}, want: "overlay"},
		{mode: "overlayfs", parent: "image", labels: []string{labels.RecordTrace, "yes", labels.Writable, "dir"}, want: "invalid"},
		// What can't be written.
		{mode: "dir", parent: "image", readOnly: true, want: "overlay"},
		{mode: "overlayfs", parent: "image", readOnly: true, labels: []string{labels.Writable, "dir"}, want: "precondition"},
		{mode: "overlayfs", labels: []string{labels.Writable, "dir", labels.FSType, "ext4;;-d /etc"}, want: "invalid"},
		{mode: "overlayfs", labels: []string{labels.Writable, "dir", labels.VirtualSize, "0"}, want: "invalid"},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			n := newFileNode(t, snapshot.Writable{Mode: labels.ParseWritable(c.mode)})
			parent := ""
			if c.parent == "image" || c.parent == "files on image" {
				parent = n.pull("base", "app")
			}
			if c.parent == "files" || c.parent == "files on image" {
				n.must(n.unpack("files", parent, nil, map[string]string{"file": "text"}))
				parent = "files"
			}
			n.files.readOnly = c.readOnly
			m := map[string]string{}
			for i := 0; i < len(c.labels); i += 2 {
				m[c.labels[i]] = c.labels[i+1]
			}
			if c.key == "" {
				c.key = "container"
			}
			mounts, err := n.Prepare(t.Context(), c.key, parent, snapshots.WithLabels(m))
			got := ""
			switch {
			case errdefs.IsInvalidArgument(err):
				got = "invalid"
			case errdefs.IsFailedPrecondition(err):
				got = "precondition"
			case err != nil:
				t.Fatal(err)
			case mounts[0].Type == "ext4":
				got = "device"
			case mounts[0].Type == "bind" && filepath.Base(mounts[0].Source) == "mountpoint":
				got = "mounted device"
			default:
				got = mounts[0].Type
			}
			if got != c.want {
				t.Errorf("%s (%v, %v), want %s", got, mounts, err, c.want)
			}
			if err != nil {
				if _, err := n.Stat(t.Context(), c.key); !errdefs.IsNotFound(err) {
					t.Errorf("left behind: %v", err)
				}
			}
		})
	}
}

// TestWritableOptions checks whose words count for a device that is made: those of
// who prepares it, else the node's. Annotations of an image come as labels, too.
func TestWritableOptions(t *testing.T) {
	node := snapshot.Writable{Size: 3 << 20, FS: "ext4;;-b 1024", Sparse: true}
	for name, c := range map[string]struct {
		labels []string
		fs     string
		size   int64
	}{
		"node":   {nil, "ext4 -b 1024", 3 << 20},
		"client": {[]string{labels.FSType, "xfs;noatime;-f", labels.VirtualSize, "1"}, "xfs -f", 1 << 30},
		"build":  {[]string{labels.Type, "image", labels.Target, "x", labels.FSType, "xfs", labels.VirtualSize, "1"}, "xfs ", 1 << 30},
		"image":  {[]string{labels.Target, "x", labels.FSType, "xfs", labels.VirtualSize, "1"}, "ext4 -b 1024", 3 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			n := newFileNode(t, node)
			m, err := n.Prepare(t.Context(), "key", "", writableLabels("dir", c.labels...))
			n.must(err)
			opts := n.files.opts[deviceID(t, m)]
			if got := opts.FS.Type + " " + opts.FS.MkfsOptions; got != c.fs || opts.Create.VirtualSize != c.size || !opts.Create.Sparse || !opts.Format {
				t.Errorf("options %+v, %+v", opts, opts.Create)
			}
		})
	}
}

// TestWritableShare: a snapshot with a device of its own does not hold the mount
// that others share.
func TestWritableShare(t *testing.T) {
	n := newFileNode(t, snapshot.Writable{})
	top := n.pull("base", "app")
	id := n.prepareDir("own", top)
	checkImage(t, n.files.images[id], "", "base", "app")
	for range 2 {
		shared := option(t, n.run("other", top), "lowerdir")
		if got := n.fake.targets(); len(got) != 1 || got[0] != shared {
			t.Errorf("images at %v, want %s", got, shared)
		}
		n.must(n.Remove(t.Context(), "other"))
		if got := n.fake.targets(); len(got) != 0 {
			t.Errorf("images at %v, want none", got)
		}
		n.restart()
		for _, a := range n.fake.recovered {
			if a.ID != id || a.Image.Upper == nil || len(a.Image.Layers) != 2 {
				t.Errorf("recovering %+v, want %s", a, id)
			}
		}
	}
	// A power failure, then Mounts; nothing else may be asked for.
	n.must(n.files.write(t.Context(), id, 1))
	n.must(n.files.reboot())
	n.restart()
	if n.files.upper(id) != nil {
		t.Error("attached before it is used")
	}
	m, err := n.Mounts(t.Context(), "own")
	n.must(err)
	if deviceID(t, m) != id {
		t.Errorf("mounts %v", m)
	}
	n.must(checkBlocks(t.Context(), n.files.upper(id), 1))
	n.must(n.Remove(t.Context(), "own"))
	if n.files.upper(id) != nil || n.fake.count("detach") == 0 {
		t.Error("attached after Remove")
	}
	n.must(clearAll(t.Context(), n))
	checkNothingLeft(t, n.cfg.Root)
}

// commitSteps are the states that a Commit of snapshot c, which is id, can be
// interrupted in; see commitWritten.
var commitSteps = []struct {
	name  string
	reach func(n *node, block, fs string) error
}{
	{"not begun", func(*node, string, string) error { return nil }},
	{"sealed", func(n *node, block, _ string) error { return seal(n, block) }},
	{"named", func(n *node, block, fs string) error {
		if err := seal(n, block); err != nil {
			return err
		}
		return os.Link(block+"/writable_data", fs+"/overlaybd.sealed")
	}},
	{"half written anew", func(n *node, block, fs string) error {
		return os.WriteFile(fs+"/overlaybd.sealed.new", []byte("LSMT"), 0o600)
	}},
	{"written anew", func(n *node, block, fs string) error {
		return os.WriteFile(fs+"/overlaybd.sealed", []byte("a copy of the layer"), 0o600)
	}},
	{"described", func(n *node, _, _ string) error {
		if err := n.Commit(n.t.Context(), "base", "c"); !errdefs.IsAlreadyExists(err) {
			return fmt.Errorf("committing under a name that is taken: %w", err)
		}
		return nil
	}},
}

func seal(n *node, block string) error {
	return lsmt.SealUpper(n.t.Context(), lsmt.UpperFiles{Data: block + "/writable_data", Index: block + "/writable_index"}, 0)
}

// onDevice prepares c on a layer that was written here, and writes to it.
func (n *node) onDevice() (id, block, fs string) {
	n.t.Helper()
	n.must(n.files.write(n.t.Context(), n.prepareDir("base-active", ""), 0, 1))
	n.must(n.Commit(n.t.Context(), "base", "base-active"))
	id = n.prepareDir("c", "base")
	n.must(n.files.write(n.t.Context(), id, 2, 3))
	root, err := filepath.EvalSymlinks(n.cfg.Root)
	n.must(err)
	dir := filepath.Join(root, "snapshots", id)
	return id, dir + "/block", dir + "/fs"
}

// goesOn checks that c, in which blocks 2 and 3 were written, is a writable snapshot
// still, and can be committed.
func (n *node) goesOn(id string) {
	n.t.Helper()
	ctx := n.t.Context()
	m, err := n.Mounts(ctx, "c")
	n.must(err)
	if got := deviceID(n.t, m); got != id {
		n.t.Errorf("device %s, want %s", got, id)
	}
	n.must(checkBlocks(ctx, n.files.upper(id), 2, 3))
	n.must(n.files.write(ctx, id, 4))
	n.must(n.Commit(ctx, "done", "c"))
	n.must(checkLayer(ctx, n.Snapshotter, "done", 2, 3, 4))
	n.must(checkLayer(ctx, n.Snapshotter, "base", 0, 1))
	// Chained: the layers of what lies on it are files.
	img := n.files.images[n.prepareDir("on", "done")]
	for i, name := range []string{"base", "done"} {
		info, err := n.Stat(ctx, name)
		n.must(err)
		if len(img.Layers) != 2 || img.Layers[i].File != info.Labels[labels.LocalCommit] {
			n.t.Errorf("layers %+v, want %s as layer %d", img.Layers, info.Labels[labels.LocalCommit], i)
		}
	}
}

// TestCommitInterrupted has the machine lose power in the middle of a Commit.
func TestCommitInterrupted(t *testing.T) {
	for _, sparse := range []bool{false, true} {
		for _, c := range commitSteps {
			t.Run(fmt.Sprintf("%s sparse=%t", c.name, sparse), func(t *testing.T) {
				n := newFileNode(t, snapshot.Writable{Sparse: sparse})
				id, block, fs := n.onDevice()
				n.must(n.files.reboot())
				n.must(c.reach(n, block, fs))
				n.restart()
				n.goesOn(id)
			})
		}
	}
}

// TestCommitNotTidied has it lose power before the writable files are gone.
func TestCommitNotTidied(t *testing.T) {
	n := newFileNode(t, snapshot.Writable{})
	_, block, _ := n.onDevice()
	kept := t.TempDir()
	for _, name := range []string{"writable_data", "writable_index", "writable.json"} {
		n.must(os.Link(filepath.Join(block, name), filepath.Join(kept, name)))
	}
	n.must(n.Commit(t.Context(), "done", "c"))
	for _, name := range []string{"writable_data", "writable_index", "writable.json"} {
		n.must(os.Link(filepath.Join(kept, name), filepath.Join(block, name)))
	}
	// Not even before the next start is it taken for what can be written.
	if m, err := n.Mounts(t.Context(), "c"); !errdefs.IsNotFound(err) {
		t.Errorf("mounts of what was committed: %v, %v", m, err)
	}
	n.must(n.files.reboot())
	n.restart()
	n.must(checkLayer(t.Context(), n.Snapshotter, "done", 2, 3))
	n.prepareDir("on", "done")
}

// TestCommitFails has each step of a Commit fail, and expects it to work when the
// cause is gone.
func TestCommitFails(t *testing.T) {
	for name, c := range map[string]struct {
		obstruct, clear func(n *node, block, fs string) error
	}{
		"detaching": {
			func(n *node, _, _ string) error {
				n.fake.script(func(_ context.Context, call, _ string) error {
					if call == "detach" {
						return errInjected
					}
					return nil
				})
				return nil
			},
			func(n *node, _, _ string) error { n.fake.script(nil); return nil },
		},
		"naming": {
			func(_ *node, _, fs string) error { return os.MkdirAll(fs+"/overlaybd.sealed/x", 0o700) },
			func(_ *node, _, fs string) error { return os.RemoveAll(fs + "/overlaybd.sealed") },
		},
		"describing": {
			func(_ *node, block, _ string) error { return os.MkdirAll(block+"/config.v1.json/x", 0o700) },
			func(_ *node, block, _ string) error { return os.RemoveAll(block + "/config.v1.json") },
		},
		"measuring": {
			func(_ *node, _, fs string) error { return os.Rename(fs, fs+".away") },
			func(_ *node, _, fs string) error { return os.Rename(fs+".away", fs) },
		},
		"committing": {
			func(n *node, _, _ string) error {
				n.run("done-active", "")
				return n.Commit(n.t.Context(), "done", "done-active")
			},
			func(n *node, _, _ string) error { return n.Remove(n.t.Context(), "done") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newFileNode(t, snapshot.Writable{})
			id, block, fs := n.onDevice()
			n.must(c.obstruct(n, block, fs))
			if err := n.Commit(t.Context(), "done", "c"); err == nil {
				t.Fatal("it did not fail")
			}
			n.must(c.clear(n, block, fs))
			n.goesOn(id)
		})
	}
}

// TestCommitRace asks for mounts while a snapshot is committed: either it is
// committed with all that was written, or Mounts came first and it is not.
func TestCommitRace(t *testing.T) {
	n := newFileNode(t, snapshot.Writable{})
	ctx := t.Context()
	for i := range 20 {
		key, name := fmt.Sprint("c-", i), fmt.Sprint("done-", i)
		n.must(n.files.write(ctx, n.prepareDir(key, ""), 1, 2))
		var both sync.WaitGroup
		both.Go(func() {
			for range 20 {
				if _, err := n.Mounts(ctx, key); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
					t.Error(err)
				}
			}
		})
		for {
			err := n.Commit(ctx, name, key)
			if err == nil {
				break
			}
			if !errdefs.IsFailedPrecondition(err) {
				t.Fatal(err)
			}
		}
		both.Wait()
		n.must(checkLayer(ctx, n.Snapshotter, name, 1, 2))
	}
}
