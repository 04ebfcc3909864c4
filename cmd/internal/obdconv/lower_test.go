package obdconv_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/cmd/internal/obdconv"
)

// entries makes an archive: "name/" is a directory, "name->target" a link, everything
// else a file.
func entries(t *testing.T, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		h := tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg}
		if link, target, ok := strings.Cut(name, "->"); ok {
			h.Name, h.Linkname, h.Typeflag = link, target, tar.TypeSymlink
		} else if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What is left below a layer before its own files come.
func TestYield(t *testing.T) {
	const below = `mkdir -p d/deep target/in; touch d/old d/deep/file target/file file; ln -s target link; ln -s d/deep far; ln -s nowhere dangling
		ln -s / up; chmod 2750 target; setfattr -n user.x -v 1 d; setfattr -n user.y -v 2 target`
	if _, err := exec.LookPath("setfattr"); err != nil {
		t.Skip("needs setfattr (package attr)")
	}
	all := "d d/deep d/deep/file d/old dangling far file link target target/file target/in up"
	without := func(names string) string {
		var rest []string
		for _, n := range strings.Fields(all) {
			if !strings.Contains(" "+names+" ", " "+n+" ") {
				rest = append(rest, n)
			}
		}
		return strings.Join(rest, " ")
	}
	for name, c := range map[string]struct {
		layer []string
		want  string // paths
		links string // those that are links still
		attrs string // of d
	}{
		"nothing":               {nil, all, "dangling far link up", "x"},
		"a directory's entry":   {[]string{"d/", "d/new"}, all, "dangling far link up", ""},
		"an implied directory":  {[]string{"d/new"}, all, "dangling far link up", "x"},
		"implied, then entry":   {[]string{"d/new", "./d/"}, all, "dangling far link up", "x"},
		"whiteout":              {[]string{"d/.wh.old", "file", ".wh.file"}, without("d/old file"), "dangling far link up", "x"},
		"whiteout of a tree":    {[]string{".wh.d", ".wh.link"}, without("d d/deep d/deep/file d/old link"), "dangling far up", ""},
		"opaque behind files":   {[]string{"d/deep/new", "d/.wh..wh..opq"}, without("d/deep d/deep/file d/old"), "dangling far link up", "x"},
		"opaque of nothing":     {[]string{"none/.wh..wh..opq"}, all, "dangling far link up", "x"},
		"in a link":             {[]string{"link/new"}, all, "dangling far up", "x"},
		"in a link, which goes": {[]string{".wh.target", "link/new"}, without("target target/file target/in"), "dangling far up", "x"},
		"below a link":          {[]string{"far/a/b"}, all, "dangling link up", "x"},
		"in a dangling link":    {[]string{"dangling/new"}, all, "far link up", "x"},
		"in a file":             {[]string{"file/new"}, all, "dangling far link up", "x"},
		"a link of its own":     {[]string{"link->d", "link/.wh.old", "link/deep/"}, all, "dangling far link up", "x"},
		"out of the root":       {[]string{"../../d/.wh.old", "d/.wh...", "d/.wh.", "d/.wh..", "up/.wh.etc"}, without("d/old"), "dangling far link", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			cmd := exec.Command("sh", "-euc", below)
			cmd.Dir = root
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if err := obdconv.Yield(t.Context(), root, bytes.NewReader(entries(t, c.layer...))); err != nil {
				t.Fatal(err)
			}
			got, links := walk(t, root)
			if got != c.want || links != c.links {
				t.Errorf("left\n%s, links %s; want\n%s, links %s", got, links, c.want, c.links)
			}
			var attrs [64]byte
			n, err := unix.Lgetxattr(filepath.Join(root, "d"), "user.x", attrs[:])
			if (err == nil && n == 1) != (c.attrs == "x") {
				t.Errorf("d has the attribute: %d, %v", n, err)
			}
			if name == "in a link" {
				st, err := os.Lstat(filepath.Join(root, "link"))
				_, attrErr := unix.Lgetxattr(filepath.Join(root, "link"), "user.y", attrs[:])
				if err := errors.Join(err, attrErr); err != nil || st.Mode() != os.ModeDir|os.ModeSetgid|0o750 {
					t.Errorf("the directory in place of the link has mode %v, %v", st.Mode(), err)
				}
			}
		})
	}
}

// walk returns the paths below root, and which are links.
func walk(t *testing.T, root string) (all, links string) {
	t.Helper()
	var paths, linked []string
	err := filepath.Walk(root, func(p string, is os.FileInfo, err error) error {
		if err == nil && p != root {
			name, _ := filepath.Rel(root, p)
			paths = append(paths, name)
			if is.Mode().Type() == os.ModeSymlink {
				linked = append(linked, name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(paths, " "), strings.Join(linked, " ")
}

// Whatever an archive says, nothing outside of the root is touched.
func FuzzYield(f *testing.F) {
	for _, names := range []string{"a/b", "link/x", "../.wh.out", "up/.wh.out", "up/up/.wh..wh..opq", "l->..", "l/.wh.out"} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Name: names, Typeflag: tar.TypeReg}); err != nil {
			f.Fatal(err)
		}
		w.Close()
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		dir := t.TempDir()
		root := filepath.Join(dir, "root")
		err := errors.Join(os.MkdirAll(root+"/a/b", 0o755), os.WriteFile(dir+"/out", []byte("out"), 0o600),
			os.Symlink("..", root+"/up"), os.Symlink("a", root+"/link"), os.Symlink("../../out", root+"/a/far"))
		if err != nil {
			t.Fatal(err)
		}
		_ = obdconv.Yield(t.Context(), root, bytes.NewReader(archive)) // may fail
		if text, err := os.ReadFile(dir + "/out"); err != nil || string(text) != "out" {
			t.Errorf("outside of the root: %q, %v", text, err)
		}
		if st, err := os.Lstat(root); err != nil || !st.IsDir() {
			t.Errorf("the root: %v, %v", st, err)
		}
	})
}
