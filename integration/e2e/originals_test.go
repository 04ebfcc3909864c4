package e2e_test

import (
	"os"
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

// records walks the root file system of a pulled image, mounted as the flags of
// `ctr image mount` say, after calling what is to happen while it is.
func (n machine) records(t *testing.T, ref string, flags []string, mounted ...func()) []tree.Record {
	t.Helper()
	target := t.TempDir()
	n.ctr(t, append(append([]string{"image", "mount"}, flags...), ref, target)...)
	defer n.ctr(t, append(append([]string{"image", "unmount", "--rm"}, flags[:2]...), target)...)
	for _, f := range mounted {
		f()
	}
	records, err := tree.Walk(target)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// How an image is mounted: as what snapshotter, and as a read-only view or as
// the root of a container.
var (
	overlayfsView = []string{"--snapshotter", "overlayfs"}
	lazyView      = []string{"--snapshotter", "overlaybd"}
	lazyContainer = []string{"--snapshotter", "overlaybd", "--rw"}
)

// original pulls an ordinary image in full and returns what containerd's
// overlayfs snapshotter makes of it.
func (n machine) original(t *testing.T, name string) ([]tree.Record, tree.Unpacking) {
	t.Helper()
	u := tree.Unpacking{Begin: time.Now()}
	n.ctr(t, "image", "pull", "--plain-http", "--snapshotter", "overlayfs", n.Ref(name))
	u.End = time.Now()
	defer n.ctr(t, "image", "rm", "--sync", n.Ref(name))
	return n.records(t, n.Ref(name), overlayfsView), u
}

// expected are modes of paths in the test images, 0 for what is not there: what
// the images are for, lest a comparison of two of them is one of nothing.
var expected = map[string]map[string]uint32{
	"sizeable": {
		"/usr/bin/python3.11": unix.S_IFREG | 0o755, "/usr/share/doc": unix.S_IFDIR | 0o755, "/usr/share/doc/libc6": 0,
	},
	"large": {
		"/usr/bin/python3.11": unix.S_IFREG | 0o755, "/usr/share/doc": unix.S_IFDIR | 0o755, "/usr/share/doc/libc6": 0,
	},
	"middle": {
		"/srv/remade/new": 0, "/srv/remade/old": 0, "/srv/remade/kept-name": unix.S_IFREG | 0o755,
		"/srv/dir-to-file": unix.S_IFDIR | 0o755, "/srv/file-to-dir": unix.S_IFREG | 0o755,
		"/srv/moved/one": unix.S_IFREG | 0o755, "/srv/moved/two": 0, "/srv/moved-here": 0,
		"/srv/target/written": unix.S_IFREG | 0o755, "/srv/metadata": unix.S_IFDIR | 0o2750,
		"/srv/emptied/d": unix.S_IFREG | 0o755, "/srv/emptied/a": 0, "/usr/bin/file": unix.S_IFREG | 0o755,
		"/usr/share/zoneinfo/America/New_York": 0, "/usr/share/zoneinfo/Europe/Berlin": unix.S_IFREG | 0o644,
	},
	"odd": {
		"/odd/wh/opaque-first/both": unix.S_IFREG | 0o644, "/odd/wh/opaque-first/old": 0,
		"/odd/wh/opaque-last/old": 0, "/odd/wh/opaque-implied": unix.S_IFDIR | 0o711, "/odd/wh/opaque-implied/old": 0,
		"/odd/wh/nowhere": unix.S_IFDIR | 0o755, "/odd/wh/dir-gone/b": 0, "/odd/wh/dir-gone/a": unix.S_IFREG | 0o644,
		"/odd/dirs/across": unix.S_IFDIR | 0o750, "/odd/dirs/implied": unix.S_IFDIR | 0o2711,
		"/odd/nodes/block-zero": unix.S_IFBLK | 0o600, "/odd/modes/file-0000": unix.S_IFREG,
		"/odd/repeated/dir-then-file": unix.S_IFREG | 0o644, "/odd/no-parent/for": unix.S_IFDIR | 0o755,
		"/odd/sparse/1.0": unix.S_IFREG | 0o644, "/odd/symlinks/real/file": unix.S_IFREG | 0o644,
	},
}

// Sizes that the large image has at least.
const (
	largeFiles = 30_000
	largeBytes = 1 << 30
)

// largest returns the largest image that is converted: with E2E=full one of more
// than 1 GB and 30,000 files, which takes minutes of each test that uses it.
func largest() image.Layered {
	if os.Getenv("E2E") == "full" {
		return image.Large()
	}
	return image.Sizeable()
}

// checkOriginal checks that a test image has what it is for.
func checkOriginal(t *testing.T, name string, records []tree.Record) {
	t.Helper()
	modes, spaces, bytes := map[string]uint32{}, map[string]bool{}, int64(0)
	for _, r := range records {
		modes[r.Path] = r.Mode
		bytes += r.Size
		for name := range r.Xattrs {
			space, _, _ := strings.Cut(name, ".")
			spaces[space] = true
		}
	}
	t.Logf("%s has %d files and %d bytes", name, len(records), bytes)
	for path, want := range expected[name] {
		if modes[path] != want {
			t.Errorf("the original's %s has mode %o, want %o", path, modes[path], want)
		}
	}
	if name == "large" && (len(records) < largeFiles || bytes < largeBytes) {
		t.Errorf("the original has %d files and %d bytes, want %d and %d", len(records), bytes, largeFiles, largeBytes)
	}
	if all := spaces["user"] && spaces["security"] && spaces["system"]; name == "odd" && !all {
		t.Errorf("the original's extended attributes are of the name spaces %v", spaces)
	}
}
