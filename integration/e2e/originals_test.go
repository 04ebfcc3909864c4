package e2e_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/sandbox"
	"github.com/reprise-containers/reprise/integration/tree"
)

// layered returns an ordinary image of several layers, made on first use and
// kept between runs.
func layered(t *testing.T, i image.Layered) image.Layout {
	t.Helper()
	tools, err := sandbox.FindTools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l, err := i.Make(t.Context(), filepath.Join(tools.Cache, "images"), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// records walks the root file system of a pulled image through a read-only
// view, after calling what is to happen while that is mounted.
func (n machine) records(t *testing.T, snapshotter, ref string, mounted ...func()) []tree.Record {
	t.Helper()
	target := t.TempDir()
	n.ctr(t, "image", "mount", "--snapshotter", snapshotter, ref, target)
	defer n.ctr(t, "image", "unmount", "--snapshotter", snapshotter, "--rm", target)
	for _, f := range mounted {
		f()
	}
	records, err := tree.Walk(target)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// original pulls an ordinary image in full and returns what containerd's
// overlayfs snapshotter makes of it.
func (n machine) original(t *testing.T, name string) ([]tree.Record, tree.Unpacking) {
	t.Helper()
	u := tree.Unpacking{Begin: time.Now()}
	n.ctr(t, "image", "pull", "--plain-http", "--snapshotter", "overlayfs", n.Ref(name))
	u.End = time.Now()
	defer n.ctr(t, "image", "rm", "--sync", n.Ref(name))
	return n.records(t, "overlayfs", n.Ref(name)), u
}

// TestOriginals checks that the images which conversion is tested with have
// what they are for.
func TestOriginals(t *testing.T) {
	n := onNode(t)
	t.Run("large", func(t *testing.T) {
		files, bytes := 0, int64(0)
		for _, r := range n.unpacked(t, image.Large()) {
			files, bytes = files+1, bytes+r.Size
		}
		t.Logf("%d files, %d bytes", files, bytes)
		if files < 30_000 || bytes < 1<<30 {
			t.Errorf("the image has %d files and %d bytes, want 30,000 and 1 GiB", files, bytes)
		}
	})
	t.Run("middle", func(t *testing.T) {
		records := n.unpacked(t, image.Middle())
		for path, mode := range map[string]uint32{
			"/srv/remade/new": 0, "/srv/remade/old": 0, "/srv/remade/kept-name": unix.S_IFREG | 0o755,
			"/srv/dir-to-file": unix.S_IFDIR | 0o755, "/srv/file-to-dir": unix.S_IFREG | 0o755,
			"/srv/moved/one": unix.S_IFREG | 0o755, "/srv/moved/two": 0, "/srv/moved-here": 0,
			"/srv/target/written": unix.S_IFREG | 0o755, "/srv/metadata": unix.S_IFDIR | 0o2750,
			"/srv/emptied/d": unix.S_IFREG | 0o755, "/srv/emptied/a": 0, "/usr/bin/file": unix.S_IFREG | 0o755,
			"/usr/share/zoneinfo/America/New_York": 0, "/usr/share/zoneinfo/Europe/Berlin": unix.S_IFREG | 0o644,
		} {
			checkMode(t, records, path, mode)
		}
	})
	t.Run("odd", func(t *testing.T) {
		records := n.unpacked(t, image.Odd())
		for path, mode := range map[string]uint32{
			"/odd/wh/opaque-first/both": unix.S_IFREG | 0o644, "/odd/wh/opaque-first/old": 0,
			"/odd/wh/opaque-last/old": 0, "/odd/wh/opaque-implied": unix.S_IFDIR | 0o711, "/odd/wh/opaque-implied/old": 0,
			"/odd/wh/nowhere": unix.S_IFDIR | 0o755, "/odd/wh/dir-gone/b": 0, "/odd/wh/dir-gone/a": unix.S_IFREG | 0o644,
			"/odd/dirs/across": unix.S_IFDIR | 0o750, "/odd/dirs/implied": unix.S_IFDIR | 0o2711,
			"/odd/nodes/block-zero": unix.S_IFBLK | 0o600, "/odd/modes/file-0000": unix.S_IFREG,
			"/odd/repeated/dir-then-file": unix.S_IFREG | 0o644, "/odd/no-parent/for": unix.S_IFDIR | 0o755,
			"/odd/sparse/1.0": unix.S_IFREG | 0o644, "/odd/symlinks/real/file": unix.S_IFREG | 0o644,
		} {
			checkMode(t, records, path, mode)
		}
		kinds := map[string]bool{}
		for _, r := range records {
			for name := range r.Xattrs {
				kinds[name[:strings.IndexByte(name, '.')]] = true
			}
		}
		for _, space := range []string{"user", "security", "system"} {
			if !kinds[space] {
				t.Errorf("no file has an attribute of the name space %s", space)
			}
		}
	})
}

// unpacked pushes an image and returns what overlayfs makes of it; the
// comparison of it with itself has to find nothing.
func (n machine) unpacked(t *testing.T, i image.Layered) []tree.Record {
	t.Helper()
	n.push(t, layered(t, i), "originals/"+i.Name+":1")
	begin := time.Now()
	records, u := n.original(t, "originals/"+i.Name+":1")
	t.Logf("unpacked and read in %v", time.Since(begin))
	for _, d := range tree.Compare(records, records, u) {
		// Links that overlayfs counts although they are hidden are the one
		// thing that no copy has.
		if !strings.Contains(d, "links ") {
			t.Error(d)
		}
	}
	return records
}

// checkMode wants the path to have a mode, or with 0 not to be there.
func checkMode(t *testing.T, records []tree.Record, path string, mode uint32) {
	t.Helper()
	var got uint32
	for _, r := range records {
		if r.Path == path {
			got = r.Mode
		}
	}
	if got != mode {
		t.Errorf("%s has mode %o, want %o", path, got, mode)
	}
}
