package tier_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
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

// strange is a file system that has no hard links, or makes them and says that they
// were there, and that hangs when it is told to.
type strange struct {
	*fuse.LoopbackNode
	ways *ways
}

type ways struct {
	links atomic.Bool
	hang  atomic.Pointer[chan struct{}]
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
		t.Skipf("mounting FUSE: %v", err)
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
	how.hang.Store(nil)
	close(until)
	if got, err := drain(t, newTier(t, s), b, b.object(1)); err != nil || !bytes.Equal(got, b.data) {
		t.Errorf("when it goes on: %d bytes: %v", len(got), err)
	}
}
