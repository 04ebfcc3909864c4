package snapshot_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore/attach"
	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// TestMain makes the test binary serve as the processes of package fusedev, and as
// one that is killed.
func TestMain(m *testing.M) {
	if root := os.Getenv(committing); root != "" {
		if err := keepCommitting(context.Background(), root); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	if code, ok := fusedev.Child(os.Args); ok {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// kernelNode is a snapshotter with the devices of the product.
type kernelNode struct {
	*snapshot.Snapshotter
	cfg    snapshot.Config
	dir    string // state and runtime of the device server
	server *fusedev.Server
	end    func() error
}

// newKernelNode starts a snapshotter below root.
func newKernelNode(ctx context.Context, cfg snapshot.Config) (*kernelNode, error) {
	dir, err := os.MkdirTemp("", "sn") // a short path, for a socket
	if err != nil {
		return nil, err
	}
	n := &kernelNode{cfg: cfg, dir: dir}
	return n, n.start(ctx)
}

// start starts the device server and the snapshotter on what there is.
func (n *kernelNode) start(ctx context.Context) error {
	var err error
	n.server, err = fusedev.Open(ctx, fusedev.Config{StateDir: n.dir + "/state", RuntimeDir: n.dir + "/run"})
	if err != nil {
		return err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 2)
	a := attach.New(n.server, func(string, ocispec.Descriptor) (blob.Blob, error) { return nil, errors.New("no registry") }, attach.DefaultConfig)
	go func() { done <- n.server.Run(run) }()
	go func() { done <- a.Run(run) }()
	n.end = func() error {
		stop()
		return errors.Join(<-done, <-done, a.Close(), n.server.Close())
	}
	n.Snapshotter, err = snapshot.New(ctx, n.cfg, a)
	return err
}

// restart ends daemon and snapshotter, and starts others on what they left.
func (n *kernelNode) restart(ctx context.Context) error {
	return errors.Join(n.Close(), n.end(), n.start(ctx))
}

// close removes everything, after a restart, and checks that nothing is left.
func (n *kernelNode) close(ctx context.Context) error {
	if err := n.restart(ctx); err != nil {
		return err
	}
	err := errors.Join(clearAll(ctx, n.Snapshotter), n.Cleanup(ctx), n.Close())
	if left := n.server.Known(); len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("left devices %q", left))
	}
	mounts, mountsErr := n.server.Mounts()
	loops, loopsErr := n.server.Loops()
	if len(mounts) > 0 || len(loops) > 0 {
		err = errors.Join(err, fmt.Errorf("left mounts %v, loop devices %v", mounts, loops))
	}
	// The server ends with its file system, so Run does before it is stopped.
	err = errors.Join(err, mountsErr, loopsErr, n.server.Shutdown(ctx), n.end())
	if err == nil {
		err = os.RemoveAll(n.dir)
	}
	return err
}

// needKernel skips a test where devices can't be mounted, and returns a root for
// a snapshotter.
func needKernel(t *testing.T) string {
	t.Helper()
	needRoot(t)
	for _, dev := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(dev); err != nil {
			t.Skipf("needs %s", dev)
		}
	}
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	return root
}

// kernel starts a node for one test.
func kernel(t *testing.T, w snapshot.Writable) *kernelNode {
	t.Helper()
	w.Size = 512 << 20
	n, err := newKernelNode(t.Context(), snapshot.Config{Root: needKernel(t), Writable: w})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return n
}

// within has another process do something in what mounts mount: this one serves
// it.
func within(t *testing.T, mounts []mount.Mount, script string) string {
	t.Helper()
	if len(mounts) != 1 {
		t.Fatalf("%d mounts: %v", len(mounts), mounts)
	}
	dir, m := t.TempDir(), mounts[0]
	args := []string{"-t", m.Type, "-o", strings.Join(m.Options, ","), m.Source, dir}
	if m.Type == "bind" {
		args = []string{"--bind", m.Source, dir}
	}
	do := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v: %s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	do("mount", args...)
	defer do("umount", dir)
	return do("sh", "-euc", "cd "+dir+"; "+script)
}

func writableLabels(mode string, more ...string) snapshots.Opt {
	l := map[string]string{labels.Writable: mode}
	for i := 0; i < len(more); i += 2 {
		l[more[i]] = more[i+1]
	}
	return snapshots.WithLabels(l)
}

// base commits an image of one layer, made by the label alone.
func (n *kernelNode) base(t *testing.T, fs string) {
	t.Helper()
	mounts, err := n.Prepare(t.Context(), "base-active", "", writableLabels("dir", labels.FSType, fs, labels.VirtualSize, "1"))
	if err != nil {
		t.Fatal(err)
	}
	within(t, mounts, "rm -rf lost+found; echo base >file; mkdir dir; sync -f .")
	if err := n.Commit(t.Context(), "base", "base-active"); err != nil {
		t.Fatal(err)
	}
}

// TestWritable writes to snapshots in all modes, commits them and reads from what
// lies on top, through restarts.
func TestWritable(t *testing.T) {
	for _, mode := range []string{"dir", "dev"} {
		for _, fs := range []string{"ext4", "xfs"} {
			for _, sparse := range []bool{false, true} {
				if fs == "xfs" && sparse {
					continue
				}
				t.Run(fmt.Sprintf("%s %s sparse=%t", mode, fs, sparse), func(t *testing.T) {
					testWritable(t, kernel(t, snapshot.Writable{Mode: labels.ParseWritable(mode), Sparse: sparse}), fs)
				})
			}
		}
	}
}

func testWritable(t *testing.T, n *kernelNode, fs string) {
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	n.base(t, fs)
	info, err := n.Stat(ctx, "base")
	must(err)
	if path := info.Labels[labels.LocalCommit]; filepath.Base(path) != "overlaybd.sealed" || info.Labels[labels.Writable] != "" {
		t.Errorf("labels %v", info.Labels)
	}
	if _, err := os.Stat(info.Labels[labels.LocalCommit]); err != nil {
		t.Error(err)
	}
	for i := range 2 {
		parent := []string{"base", "top-0"}[i]
		key := fmt.Sprint("container-", i)
		mounts, err := n.Prepare(ctx, key, parent)
		must(err)
		within(t, mounts, fmt.Sprintf("grep -q base file; echo %d >new-%d; head -c 1000000 /dev/zero | tr '\\0' x >large; sync -f .; rm -r dir; mkdir dir", i, i))
		must(n.restart(ctx))
		mounts, err = n.Mounts(ctx, key)
		must(err)
		within(t, mounts, fmt.Sprintf("grep -q %d new-%d; test -d dir; rm large", i, i))
		usage, err := n.Usage(ctx, key)
		must(err)
		if usage.Size < 8192 {
			t.Errorf("usage %+v", usage)
		}
		must(n.Commit(ctx, fmt.Sprint("top-", i), key))
	}
	// Read by overlayfs, whatever the mode of the node.
	mounts, err := n.Prepare(ctx, "overlay", "top-1", writableLabels("overlayfs"))
	must(err)
	if mounts[0].Type != "overlay" {
		t.Errorf("mounts %v", mounts)
	}
	within(t, mounts, "grep -q 0 new-0; grep -q 1 new-1; test ! -e large")
	mounts, err = n.View(ctx, "view", "top-0")
	must(err)
	within(t, mounts, "test ! -e new-1; grep -q 0 new-0")
	mounts, err = n.View(ctx, "view-device", "top-1", writableLabels("dev"))
	must(err)
	if mounts[0].Type != fs || !slices.Contains(mounts[0].Options, "ro") {
		t.Errorf("mounts %v", mounts)
	}
	within(t, mounts, "grep -q 1 new-1; ! touch x 2>/dev/null")
}

// TestWritableSuite runs containerd's conformance suite with every chain of
// snapshots on an image, all of them written to devices.
func TestWritableSuite(t *testing.T) {
	needKernel(t)
	for _, mode := range []labels.WritableMode{labels.WritableDir, labels.WritableDevice} {
		t.Run(fmt.Sprint("mode ", mode), func(t *testing.T) {
			testsuite.SnapshotterSuite(t, "ext4", func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
				n, err := newKernelNode(ctx, snapshot.Config{Root: root, Writable: snapshot.Writable{Mode: mode, Size: 64 << 20}})
				if err != nil {
					return nil, nil, err
				}
				mounts, err := n.Prepare(ctx, "base-active", "", writableLabels("dir"))
				if err == nil {
					err = os.Remove(filepath.Join(mounts[0].Source, "lost+found"))
				}
				if err == nil {
					err = n.Commit(ctx, baseName, "base-active")
				}
				if err != nil {
					return nil, nil, err
				}
				return onWritable{n.Snapshotter}, func() error { return n.close(ctx) }, nil
			})
		})
	}
}

// onWritable puts snapshots without a parent on the base, which it hides.
type onWritable struct{ *snapshot.Snapshotter }

func (o onWritable) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return o.Snapshotter.Prepare(ctx, key, below(parent), opts...)
}

func (o onWritable) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return o.Snapshotter.View(ctx, key, below(parent), opts...)
}

func (o onWritable) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	info, err := o.Snapshotter.Stat(ctx, key)
	delete(info.Labels, labels.LocalCommit)
	return hide(info), err
}

func (o onWritable) Update(ctx context.Context, info snapshots.Info, fieldpaths ...string) (snapshots.Info, error) {
	info, err := o.Snapshotter.Update(ctx, info, fieldpaths...)
	delete(info.Labels, labels.LocalCommit)
	return hide(info), err
}

func (o onWritable) Walk(ctx context.Context, fn snapshots.WalkFunc, fs ...string) error {
	return walkOnBase(ctx, o.Snapshotter, func(ctx context.Context, info snapshots.Info) error {
		delete(info.Labels, labels.LocalCommit)
		return fn(ctx, info)
	}, fs)
}

// TestWritableRefused asks for what can't be.
func TestWritableRefused(t *testing.T) {
	n := kernel(t, snapshot.Writable{})
	ctx := t.Context()
	for name, c := range map[string]struct {
		parent string
		opt    snapshots.Opt
		class  func(error) bool
	}{
		"bad options": {"", writableLabels("dir", labels.FSType, "ext4;;-L $(reboot) /dev/sda"), errdefs.IsInvalidArgument},
		"bad type":    {"", writableLabels("dir", labels.FSType, "erofs"), errdefs.IsInvalidArgument},
		"no parent":   {"missing", writableLabels("dir"), errdefs.IsNotFound},
	} {
		if _, err := n.Prepare(ctx, "key", c.parent, c.opt); !c.class(err) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := n.Stat(ctx, "key"); !errdefs.IsNotFound(err) {
			t.Errorf("%s: left behind: %v", name, err)
		}
	}
	n.base(t, "ext4")
	mounts, err := n.Prepare(ctx, "key", "base", writableLabels("dir"))
	if err != nil {
		t.Fatal(err)
	}
	// In use, it is neither committed nor removed.
	dir := t.TempDir()
	if out, err := exec.Command("mount", "--bind", mounts[0].Source, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	checkRefused(t, n.Commit(ctx, "committed", "key"), dir)
	checkRefused(t, n.Remove(ctx, "key"), dir)
	if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	within(t, mounts, "echo text >new; sync -f .")
	if err := n.Commit(ctx, "base", "key"); !errdefs.IsAlreadyExists(err) {
		t.Errorf("committing under a name that is taken: %v", err)
	}
	// It goes on as a writable one.
	if mounts, err = n.Mounts(ctx, "key"); err != nil {
		t.Fatal(err)
	}
	within(t, mounts, "grep -q text new; echo more >>new; sync -f .")
	if err := n.Commit(ctx, "committed", "key"); err != nil {
		t.Fatal(err)
	}
	if mounts, err = n.View(ctx, "view", "committed"); err != nil {
		t.Fatal(err)
	}
	within(t, mounts, "grep -q more new")
}
