package tier_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	fuse "github.com/hanwen/go-fuse/v2/fs"
	fuseproto "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/cache/cluster/tier"
)

// mounted returns a directory of a small file system, whose mount has more flags later.
func mounted(t *testing.T) (dir string, remount func(flags uintptr)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir, func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT|flags, "size=3m"); err != nil {
			t.Fatal(err)
		}
	}
}

// A disk that is full, or may not be written, is read all the same, and has nothing
// of what did not fit.
func TestFullDisk(t *testing.T) {
	dir, remount := mounted(t)
	s, err := tier.NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, small, large := newTier(t, s), newBlob(100_000, 1), newBlob(8<<20, 2)
	put(t, l, small, 1)
	check := func(want syscall.Errno, b blob) {
		t.Helper()
		err := newTier(t, s).Put(t.Context(), b.digest, b.object(2), bytes.NewReader(b.data))
		if !errors.Is(err, want) {
			t.Errorf("putting: %v", err)
		}
		if got := names(t, s, ""); len(got) != 1 {
			t.Errorf("the store has %q", got)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, ".new/*")); len(left) != 0 {
			t.Errorf("%q is left", left)
		}
		if got, err := drain(t, l, small, small.object(1)); err != nil || !bytes.Equal(got, small.data) {
			t.Errorf("reading: %v", err)
		}
	}
	check(unix.ENOSPC, large)
	remount(unix.MS_RDONLY)
	check(unix.EROFS, newBlob(1000, 3))
	if err := l.Remove(t.Context(), small.digest, 1); !errors.Is(err, unix.EROFS) {
		t.Errorf("removing: %v", err)
	}
	if report, err := newTier(t, s).Sweep(t.Context(), tier.SweepConfig{MaxBytes: 1}); err == nil || report.Objects != 1 {
		t.Errorf("sweeping: %+v, %v", report, err)
	}
	remount(0)
	put(t, newTier(t, s), newBlob(1000, 3), 2)
}

// A directory that is not there, as where a mount is missing, is not made, and is not
// a blob that is not there.
func TestNoDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	s, err := tier.NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := newBlob(1000, 1)
	_, openErr := drain(t, newTier(t, s), b, b.object(1))
	_, _, findErr := newTier(t, s).Find(t.Context(), b.digest)
	putErr := newTier(t, s).Put(t.Context(), b.digest, b.object(1), bytes.NewReader(b.data))
	_, sweepErr := newTier(t, s).Sweep(t.Context(), tier.SweepConfig{})
	removeErr := newTier(t, s).Remove(t.Context(), b.digest, 1)
	for what, err := range map[string]error{"opening": openErr, "finding": findErr, "putting": putErr, "sweeping": sweepErr, "removing": removeErr} {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory was made")
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, newTier(t, s), b, 1)
}

// What is no file is no object.
func TestDirIgnoresWhatIsNoFile(t *testing.T) {
	s, dir := newDir(t)
	b := newBlob(1000, 1)
	name := filepath.Join(dir, objectName(b, 1))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, lay := range []func() error{
		func() error { return unix.Mkfifo(name, 0o644) },
		func() error { return os.Mkdir(name, 0o755) },
	} {
		if err := lay(); err != nil {
			t.Fatal(err)
		}
		if _, err := drain(t, newTier(t, s), b, b.object(1)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("opening: %v", err)
		}
		if _, found, err := newTier(t, s).Find(t.Context(), b.digest); found || err != nil {
			t.Errorf("found %v: %v", found, err)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// One file, or the folder of one blob, that can not be read is not a store that is
// away, nor a blob that is not there, and does not keep the rest from being swept.
func TestOneIsUnreadable(t *testing.T) {
	dir, how := strangeDir(t)
	how.links.Store(false)
	s, err := tier.NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, other := newBlob(100_000, 1), newBlob(1000, 2)
	put(t, newTier(t, s), b, 7)
	put(t, newTier(t, s), other, 1)
	name := filepath.Join(dir, objectName(b, 7))
	lay := func(f func() error) func() {
		return func() {
			if err := errors.Join(os.RemoveAll(name), f()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		what   string
		do     func()
		folder bool // of all generations
	}{
		{"a file that is denied", func() { how.denied.Store(path.Base(name)) }, false},
		{"a folder that is denied", func() { how.denied.Store(b.digest.Encoded()) }, true},
		{"a link in a circle", lay(func() error { return os.Symlink(path.Base(name), name) }), false},
		{"a link that leads out", lay(func() error { return os.Symlink("/etc/hostname", name) }), false},
		{"a file in place of the folder", func() {
			lay(func() error { return os.Remove(filepath.Dir(name)) })()
			lay(func() error { return os.WriteFile(filepath.Dir(name), nil, 0o644) })()
		}, false},
	} {
		how.denied.Store("")
		c.do()
		l := newTier(t, s)
		if !c.folder { // who may not list a folder may open what is in it
			if _, err := drain(t, l, b, b.object(7)); !errors.Is(err, tier.ErrUnreadable) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("opening %s: %v", c.what, err)
			}
			if l.Stats().ReadErrors != 1 {
				t.Errorf("%s: %+v", c.what, l.Stats())
			}
		}
		if _, _, err := l.Find(t.Context(), b.digest); errors.Is(err, tier.ErrUnreadable) != c.folder {
			t.Errorf("finding %s: %v", c.what, err)
		}
		if got, err := drain(t, l, other, other.object(1)); err != nil || !bytes.Equal(got, other.data) || l.Stats().Reading.Away {
			t.Errorf("beside %s: %d bytes: %v", c.what, len(got), err)
		}
		report, err := l.Sweep(t.Context(), tier.SweepConfig{})
		if report.Objects == 0 || errors.Is(err, tier.ErrUnreadable) != c.folder {
			t.Errorf("sweeping beside %s: %+v: %v", c.what, report, err)
		}
	}
}

// What a replica puts those of other users can read, whatever its umask is; and where
// the directory is a group's, so is what is in it.
func TestModes(t *testing.T) {
	s, dir := newDir(t)
	if err := os.Chmod(dir, 0o750|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	for i, umask := range []int{0o077, 0o022, 0o002} {
		before := syscall.Umask(umask)
		b := newBlob(1000, uint64(i))
		put(t, newTier(t, s), b, 1)
		syscall.Umask(before)
		name := filepath.Join(dir, objectName(b, 1))
		info, err := os.Stat(name)
		if want := 0o664&^os.FileMode(umask) | 0o644; err != nil || info.Mode() != want {
			t.Errorf("with umask %03o the file has %v: %v", umask, info.Mode(), err)
		}
		info, err = os.Stat(filepath.Dir(name))
		if want := os.ModeDir | os.ModeSetgid | 0o775&^os.FileMode(umask) | 0o755; err != nil || info.Mode() != want {
			t.Errorf("with umask %03o the folder has %v: %v", umask, info.Mode(), err)
		}
	}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if info, _ := d.Info(); err == nil && name != dir && info.Mode()&0o444 != 0o444 {
			t.Errorf("%s has %v", name, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// strange is a file system that has no hard links, or makes them and says that they
// were there, and that hangs, or denies something, when it is told to.
type strange struct {
	*fuse.LoopbackNode
	ways *ways
}

type ways struct {
	links  atomic.Bool
	hang   atomic.Pointer[chan struct{}]
	denied atomic.Value // string: what may not be opened
}

func (w *ways) denies(n *strange) bool {
	name, _ := w.denied.Load().(string)
	return name != "" && path.Base(n.Path(nil)) == name
}

func (n *strange) Open(ctx context.Context, flags uint32) (fuse.FileHandle, uint32, syscall.Errno) {
	if n.ways.denies(n) {
		return nil, 0, syscall.EACCES
	}
	return n.LoopbackNode.Open(ctx, flags)
}

func (n *strange) OpendirHandle(ctx context.Context, flags uint32) (fuse.FileHandle, uint32, syscall.Errno) {
	if n.ways.denies(n) {
		return nil, 0, syscall.EACCES
	}
	return n.LoopbackNode.OpendirHandle(ctx, flags)
}

// WrapChild makes what is below strange too.
func (n *strange) WrapChild(_ context.Context, child fuse.InodeEmbedder) fuse.InodeEmbedder {
	return &strange{child.(*fuse.LoopbackNode), n.ways}
}

func (n *strange) Link(ctx context.Context, target fuse.InodeEmbedder, name string, out *fuseproto.EntryOut) (*fuse.Inode, syscall.Errno) {
	if !n.ways.links.Load() {
		return nil, syscall.EPERM
	}
	if _, err := n.LoopbackNode.Link(ctx, target.(*strange).LoopbackNode, name, out); err != 0 {
		return nil, err
	}
	return nil, syscall.EEXIST
}

func (n *strange) Lookup(ctx context.Context, name string, out *fuseproto.EntryOut) (*fuse.Inode, syscall.Errno) {
	if until := n.ways.hang.Load(); until != nil {
		<-*until
	}
	return n.LoopbackNode.Lookup(ctx, name, out)
}

// strangeDir mounts a strange file system.
func strangeDir(t *testing.T) (dir string, how *ways) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir, how = t.TempDir(), &ways{}
	loopback, err := fuse.NewLoopbackRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	root := &strange{loopback.(*fuse.LoopbackNode), how}
	server, err := fuse.Mount(dir, root, &fuse.Options{MountOptions: fuseproto.MountOptions{DirectMount: true}})
	if err != nil {
		t.Fatalf("mounting FUSE: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return dir, how
}

// Without hard links objects appear whole and are not replaced either; and so they do
// where a link is made twice because the first answer was lost, as with NFS.
func TestStrangeLinks(t *testing.T) {
	for _, links := range []bool{false, true} {
		t.Run(fmt.Sprintf("links %v", links), func(t *testing.T) { testStrangeLinks(t, links) })
	}
}

func testStrangeLinks(t *testing.T, links bool) {
	dir, how := strangeDir(t)
	how.links.Store(links)
	s, err := tier.NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, b := newTier(t, s), newBlob(100_000, 1)
	put(t, l, b, 1)
	if err := l.Put(t.Context(), b.digest, b.object(1), bytes.NewReader(b.data)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("putting again: %v", err)
	}
	if got, err := drain(t, l, b, b.object(1)); err != nil || !bytes.Equal(got, b.data) {
		t.Errorf("%d bytes: %v", len(got), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".new/*")); len(left) != 0 {
		t.Errorf("%q is left", left)
	}
}

// A file system that hangs, like NFS whose server is away, is not waited for.
func TestHangingFileSystem(t *testing.T) {
	dir, how := strangeDir(t)
	s, err := tier.NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := newBlob(100_000, 1)
	put(t, newTier(t, s), b, 1)
	until := make(chan struct{})
	how.hang.Store(&until)
	l := newImpatient(t, s)
	if _, err := drain(t, l, b, b.object(1)); !errors.Is(err, tier.ErrSilent) {
		t.Errorf("opening: %v", err)
	}
	if _, _, err := l.Find(t.Context(), b.digest); !errors.Is(err, tier.ErrAway) {
		t.Errorf("finding: %v", err)
	}
	// More calls than may hang: they end with their context.
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	done := make(chan error)
	for range 200 {
		go func() {
			_, _, err := s.Open(ctx, objectName(b, 1), 0, 10)
			done <- err
		}()
	}
	for range 200 {
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("opening: %v", err)
		}
	}
	if _, err := newImpatient(t, s).Sweep(context.Background(), tier.SweepConfig{}); !errors.Is(err, tier.ErrSilent) {
		t.Errorf("sweeping: %v", err)
	}
	how.hang.Store(nil)
	close(until)
	if got, err := drain(t, newTier(t, s), b, b.object(1)); err != nil || !bytes.Equal(got, b.data) {
		t.Errorf("when it goes on: %d bytes: %v", len(got), err)
	}
}
