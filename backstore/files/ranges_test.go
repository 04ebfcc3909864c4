package files_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore/erofs"
	"github.com/reprise-containers/reprise/backstore/ext4"
	"github.com/reprise-containers/reprise/backstore/files"
	"github.com/reprise-containers/reprise/backstore/files/filestest"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

// images calls f with a device for each kind of file system, made of dir.
func images(t *testing.T, dir string, f func(t *testing.T, dev blob.ReaderAt)) {
	t.Helper()
	for _, name := range []string{"default", "inline", "1k", "block maps", "as overlaybd"} {
		t.Run("ext4 "+name, func(t *testing.T) {
			f(t, filestest.Open(t, filestest.Ext4(t, dir, filestest.Ext4Variants[name]...)))
		})
	}
	for name, flags := range map[string][]string{"inline": nil, "plain": {"-E", "noinline_data"}, "compact": {"-E", "force-inode-compact"}} {
		t.Run("erofs "+name, func(t *testing.T) {
			f(t, filestest.Open(t, filestest.Erofs(t, dir, flags...)))
		})
	}
}

// find is Ranges of paths of which none is missing.
func find(t *testing.T, dev blob.ReaderAt, paths ...string) []files.Range {
	t.Helper()
	ranges, missing, err := files.Ranges(t.Context(), dev, paths)
	if err != nil || len(missing) != 0 {
		t.Fatalf("Ranges(%.200q) misses %q, %v", paths, missing, err)
	}
	return ranges
}

// read returns what lies in ranges.
func read(t *testing.T, dev blob.ReaderAt, ranges []files.Range) []byte {
	t.Helper()
	var all []byte
	for _, r := range ranges {
		b := make([]byte, r.Size)
		if err := blob.ReadFull(t.Context(), dev, b, r.Off); err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

// TestContent finds each file and reads what was found.
func TestContent(t *testing.T) {
	dir := filestest.Tree(t)
	images(t, dir, func(t *testing.T, dev blob.ReaderAt) {
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			want, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(p, dir)
			got := read(t, dev, find(t, dev, name))
			if name == "/sparse" {
				// Erofs has holes only in other layouts.
				if strings.Contains(t.Name(), "ext4") && len(got) >= len(want)/2 {
					t.Errorf("%d bytes of a sparse file", len(got))
				}
				want = []byte("data at 5242880")
			} else if len(got) > (len(want)+511)/512*512 {
				t.Errorf("%s: %d bytes, want %d", name, len(got), len(want))
			}
			// The first part of content in an ext4 inode is in another place.
			if !bytes.Contains(got, want[min(60, len(want)-len(want)/2):]) {
				t.Errorf("%s: %d other bytes, want %d", name, len(got), len(want))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestPaths(t *testing.T) {
	dir := filestest.Tree(t)
	images(t, dir, func(t *testing.T, dev blob.ReaderAt) {
		app := find(t, dev, "/usr/bin/app")
		if got := read(t, dev, app); !bytes.HasPrefix(got, []byte(strings.Repeat("app\n", 1000000))) {
			t.Errorf("%d bytes of /usr/bin/app", len(got))
		}
		for _, p := range []string{
			"usr/bin/app", "/bin/app", "//usr/./bin//app", "/lib/../bin/app", "/../../bin/app", "/out", "/long", "/usr/bin/same",
		} {
			if got := find(t, dev, p); !slices.Equal(got, app) {
				t.Errorf("%q is in %v, want %v", p, got, app)
			}
		}
		for p, same := range map[string]string{
			"/usr/abs/c/d/e/f/g/deep": "/a/b/c/d/e/f/g/deep", "/bin/up": "/empty", "/usr/lib/": "/lib/", "/usr/": "/a/../usr/",
		} {
			if got, want := find(t, dev, p), find(t, dev, same); !slices.Equal(got, want) {
				t.Errorf("%q is in %v, want %v", p, got, want)
			}
		}
		lost := []string{
			"/nowhere", "/dangling", "/loop1", "/loop2/", "/usr/bin/app/", "/usr/bin/app/x", "/usr/nowhere/", "/empty/",
			"/" + strings.Repeat("n", 256), strings.Repeat("/usr/..", 1000), "/many/a name that is neither",
		}
		ranges, missing, err := files.Ranges(t.Context(), dev, append([]string{"/usr/bin/app"}, lost...))
		if err != nil || !slices.Equal(missing, lost) || !slices.Equal(ranges, app) {
			t.Errorf("missing %q, %v; want %q", missing, err, lost)
		}
	})
}

// TestBelow checks that a directory means all below it, once, and in order of the
// list.
func TestBelow(t *testing.T) {
	dir := filestest.Tree(t)
	images(t, dir, func(t *testing.T, dev blob.ReaderAt) {
		all := find(t, dev, "/")
		var size int64
		for _, r := range all {
			size += r.Size
		}
		if size > dev.Size() {
			t.Errorf("%d bytes are below /, of %d", size, dev.Size())
		}
		var names []string
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			names = append(names, strings.TrimPrefix(p, dir))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range names {
			ranges, _, err := files.Ranges(t.Context(), dev, []string{p})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range ranges {
				if !slices.Contains(all, r) {
					t.Errorf("%v of %q is not below /", r, p)
				}
			}
		}
		few, app := find(t, dev, "/few/"), find(t, dev, "/usr/bin/app")
		if got, want := find(t, dev, "/few/", "/usr/bin/app", "/few/3", "/few/"), slices.Concat(few, app); !slices.Equal(got, want) {
			t.Errorf("/few/ and then app are in %v, want %v", got, want)
		}
	})
}

func TestRefused(t *testing.T) {
	ctx := t.Context()
	for name, dev := range map[string]blob.ReaderAt{
		"empty": blobtest.Bytes(nil), "zeros": blobtest.Bytes(make([]byte, 1<<20)), "small": blobtest.Bytes(make([]byte, 1500)),
	} {
		if _, _, err := files.Ranges(ctx, dev, []string{"/"}); !errors.Is(err, ext4.ErrFormat) && !errors.Is(err, erofs.ErrFormat) {
			t.Errorf("%s device: %v, want ErrFormat", name, err)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/f", bytes.Repeat([]byte("f"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	dev := filestest.Open(t, filestest.Erofs(t, dir, "-zlz4"))
	if _, _, err := files.Ranges(ctx, dev, []string{"/"}); !errors.Is(err, erofs.ErrFormat) || !strings.Contains(err.Error(), "compressed") {
		t.Errorf("compressed erofs: %v", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	dev = filestest.Open(t, filestest.Ext4(t, dir))
	if _, _, err := files.Ranges(ctx, dev, []string{"/"}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	boom := errors.New("boom")
	if _, _, err := files.Ranges(t.Context(), broken{dev, boom}, []string{"/"}); !errors.Is(err, boom) {
		t.Errorf("a device that can't be read: %v", err)
	}
}

// broken is a device on which the superblock is all that can be read.
type broken struct {
	blob.ReaderAt
	err error
}

func (b broken) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off > 0 {
		return 0, b.err
	}
	return b.ReaderAt.ReadAt(ctx, p, off)
}

// TestReadsOnce checks what a list costs in metadata: no page twice, and of a
// directory with many names not all.
func TestReadsOnce(t *testing.T) {
	dir := filestest.Tree(t)
	images(t, dir, func(t *testing.T, dev blob.ReaderAt) {
		c := &counted{ReaderAt: dev, pages: map[int64]int{}}
		find(t, c, "/many/a name that is neither short nor long 0777", "/many/a name that is neither short nor long 0778")
		for page, n := range c.pages {
			if n > 1 {
				t.Errorf("page %d was read %d times", page, n)
			}
		}
		if len(c.pages) > 16 {
			t.Errorf("%d pages were read for two files", len(c.pages))
		}
	})
}

type counted struct {
	blob.ReaderAt
	pages map[int64]int
}

func (c *counted) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	for n := off / 4096; n*4096 < off+int64(len(p)); n++ {
		c.pages[n]++
	}
	return c.ReaderAt.ReadAt(ctx, p, off)
}
