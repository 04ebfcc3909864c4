package convert_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/convert"
	"github.com/reprise-containers/reprise/backstore/erofs"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/remote/blob"
)

// entry is a member of an archive.
type entry struct {
	tar.Header
	content string
}

func dir(name string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}}
}

func file(name, content string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}, content}
}

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func id(n int) convert.ID {
	i := convert.ID{ChainID: digest.FromString(fmt.Sprint(n))}
	if n > 0 {
		i.ParentChainID = digest.FromString(fmt.Sprint(n - 1))
	}
	return i
}

// image is converted layers in files.
type image struct {
	files []string
	blobs []backstore.Blob
}

// run converts archives to files in a temporary directory.
func run(t testing.TB, opts convert.Options, archives ...[]byte) image {
	t.Helper()
	opts.Dir = t.TempDir()
	c, err := convert.NewChain(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var img image
	for n, a := range archives {
		l, err := c.Add(t.Context(), bytes.NewReader(a), id(n))
		if err != nil {
			t.Fatal(err)
		}
		img.write(t, l)
	}
	return img
}

func (i *image) write(t testing.TB, l *convert.Layer) {
	t.Helper()
	defer l.Close()
	f, err := os.Create(filepath.Join(t.TempDir(), "layer"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := l.Write(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if b.Digest != digest.FromBytes(content) || b.Size != int64(len(content)) {
		t.Errorf("blob is said to be %s of %d bytes, but has %d", b.Digest, b.Size, len(content))
	}
	i.files, i.blobs = append(i.files, f.Name()), append(i.blobs, b)
}

// device opens the device that the layers make.
func (i image) device(t testing.TB) *lsmt.Image {
	t.Helper()
	var layers []blob.ReaderAt
	for _, name := range i.files {
		f, err := blob.OpenFile(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		layers = append(layers, f)
	}
	img, err := backstore.Open(t.Context(), layers)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// tree lists what is on the device, a line each.
func (i image) tree(t testing.TB) []string {
	t.Helper()
	m, err := erofs.Open(t.Context(), i.device(t))
	if err != nil {
		t.Fatal(err)
	}
	root, err := m.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list(t, m, root, "")
}

func list(t testing.TB, m *erofs.Image, dir *erofs.Inode, path string) (lines []string) {
	t.Helper()
	entries, err := m.ReadDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name == "." || e.Name == ".." {
			continue
		}
		i, err := m.Inode(t.Context(), e.NID)
		if err != nil {
			t.Fatal(err)
		}
		name := path + "/" + e.Name
		lines = append(lines, name+" "+describe(t, m, i))
		if i.IsDir() {
			lines = append(lines, list(t, m, i, name)...)
		}
	}
	return lines
}

func describe(t testing.TB, m *erofs.Image, i *erofs.Inode) string {
	t.Helper()
	xattrs, err := m.Xattrs(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%o", i.Mode)
	switch i.Type() {
	case erofs.TypeRegular:
		content := make([]byte, i.Size)
		if err := m.ReadAt(t.Context(), i, content, 0); err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf(" %d %s", i.Nlink, digest.FromBytes(content).Encoded()[:8])
	case erofs.TypeSymlink:
		target, err := m.ReadLink(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		text += " -> " + target
	}
	if i.UID+i.GID > 0 || i.MTime > 0 || i.Rdev > 0 {
		text += fmt.Sprintf(" %d:%d %d.%d dev %x", i.UID, i.GID, i.MTime, i.MTimeNsec, i.Rdev)
	}
	if len(xattrs) > 0 {
		text += fmt.Sprintf(" %v", xattrs)
	}
	return text
}

func expect(t *testing.T, img image, want ...string) {
	t.Helper()
	if got := img.tree(t); !slices.Equal(got, want) {
		t.Errorf("the image has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func sum(content string) string { return digest.FromString(content).Encoded()[:8] }

// TestAttributes: every type of entry, with all that belongs to it.
func TestAttributes(t *testing.T) {
	at := time.Unix(1_600_000_000, 123_456_789)
	all := []entry{
		{tar.Header{Typeflag: tar.TypeReg, Name: "./suid", Mode: 0o104755, Size: 1, Uid: 1 << 20, Gid: 70000, ModTime: at, Format: tar.FormatPAX,
			PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b\x00c", "SCHILY.xattr.trusted.overlay.redirect": "x", "SCHILY.xattr.odd": "y", "SCHILY.xattr.security.capability": "z"}}, "x"},
		{Header: tar.Header{Typeflag: tar.TypeChar, Name: "char", Mode: 0o600, Devmajor: 259, Devminor: 300}},
		{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "block", Mode: 0o660, Devmajor: 8, Devminor: 1}},
		{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o622}},
		{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "abs", Linkname: "/../../etc", Mode: 0o777,
			PAXRecords: map[string]string{"SCHILY.xattr.user.a": "dropped", "SCHILY.xattr.security.a": "kept"}, Format: tar.FormatPAX}},
		{Header: tar.Header{Typeflag: tar.TypeLink, Name: "d/hard", Linkname: "suid", Mode: 0o4711, Uid: 5}},
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o1777, ModTime: time.Unix(1<<34, 0),
			PAXRecords: map[string]string{"SCHILY.xattr.user.d": "1"}, Format: tar.FormatPAX}},
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o1777,
			PAXRecords: map[string]string{"SCHILY.xattr.user.e": "2"}, Format: tar.FormatPAX}},
		{Header: tar.Header{Typeflag: tar.TypeLink, Name: "link", Linkname: "abs", Mode: 0o600}},
		{Header: tar.Header{Typeflag: tar.TypeReg, Name: "old", Mode: 0, ModTime: time.Unix(-5, 0), Format: tar.FormatPAX}},
	}
	img := run(t, convert.Options{}, archive(t, all...))
	expect(t, img,
		"/abs 120777 -> /../../etc map[security.a:kept]",
		"/block 60660 0:0 0.0 dev 801",
		"/char 20600 0:0 0.0 dev 11032c",
		"/d 41777 map[user.d:1 user.e:2]",
		"/d/hard 104711 2 "+sum("x")+" 5:0 0.0 dev 0 map[user.a:b\x00c]",
		"/fifo 10622",
		"/link 120777 -> /../../etc map[security.a:kept]",
		"/old 100000 1 "+sum(""),
		"/suid 104711 2 "+sum("x")+" 5:0 0.0 dev 0 map[user.a:b\x00c]",
	)
}

// TestOverlay: what hides what, over layers.
func TestOverlay(t *testing.T) {
	wh := func(name string) entry { return file(name, "") }
	noted := dir("x")
	noted.PAXRecords = map[string]string{"SCHILY.xattr.trusted.overlay.opaque": "y"}
	noted.Format = tar.FormatPAX
	img := run(t, convert.Options{},
		archive(t, dir("a"), file("a/1", "1"), file("a/2", "2"), dir("b"), file("b/3", "3"), file("c", "4"),
			dir("x"), file("x/5", "5"), file("gone", "6"), file("device", "7"), dir("swap"), file("swap/8", "8")),
		archive(t, dir("a"), wh("a/.wh.1"), dir("b"), file("b/new", "9"), wh("b/.wh..wh..opq"), noted,
			wh(".wh.gone"), wh(".wh..wh.plnk"), wh(".wh.never"),
			entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "device"}},
			file("hidden", "again"), entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "hidden"}},
			file("swap", "file"), dir("c"), file("c/in", "10"), file("a/2", "first"), file("a/2", "second")),
	)
	expect(t, img,
		"/a 40755", "/a/2 100644 1 "+sum("second"),
		"/b 40755", "/b/new 100644 1 "+sum("9"),
		"/c 40755", "/c/in 100644 1 "+sum("10"),
		"/swap 100644 1 "+sum("file"),
		"/x 40755", "/x/5 100644 1 "+sum("5"))
}

// TestReproducible: equal archives give equal blobs, whatever the workers, and
// a layer's blob does not depend on what is above it.
func TestReproducible(t *testing.T) {
	var first, second []entry
	for i := range 200 {
		first = append(first, file(fmt.Sprintf("d%d/f%d", i%7, i), strings.Repeat(fmt.Sprint(i), i*97)))
		second = append(second, file(fmt.Sprintf("d%d/g%d", i%7, i), fmt.Sprint(i)))
	}
	a, b := archive(t, first...), archive(t, second...)
	for _, algorithm := range []zfile.Algorithm{zfile.LZ4, zfile.ZSTD} {
		one := run(t, convert.Options{Compression: zfile.Options{Algorithm: algorithm, Workers: 1}}, a, b)
		eight := run(t, convert.Options{Compression: zfile.Options{Algorithm: algorithm, Workers: 8}}, a, b)
		base := run(t, convert.Options{Compression: zfile.Options{Algorithm: algorithm}}, a)
		if !slices.Equal(one.blobs, eight.blobs) {
			t.Errorf("%v: %v with one worker, %v with eight", algorithm, one.blobs, eight.blobs)
		}
		if one.blobs[0] != base.blobs[0] {
			t.Errorf("%v: the base is %v alone, %v below another layer", algorithm, base.blobs[0], one.blobs[0])
		}
	}
}

// TestPinned: what blobs are made of equal archives is written down. If it
// changes, Version must, too.
func TestPinned(t *testing.T) {
	bottom := []entry{dir("etc"), file("etc/passwd", "root:x:0:0::/:/bin/sh\n"), file("empty", ""),
		{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "etc/passwd", ModTime: time.Unix(1, 2), Format: tar.FormatPAX}}}
	for i := range 600 {
		bottom = append(bottom, file(fmt.Sprintf("many/%03d", i), strings.Repeat(fmt.Sprintln("line", i), i)))
	}
	top := []entry{file("many/077", "changed"), file("many/new", "added"), file("etc/.wh.passwd", "")}
	for algorithm, want := range map[zfile.Algorithm][]digest.Digest{
		zfile.LZ4: {
			"sha256:adfb7e07cb57cfaa2923a927fc4f08a5c057a8478b9f105b8b7abdc95c07bb8c",
			"sha256:7d8179ed2ffb69a6fd807c3351fe71a20c475686762d27d4f5d2bf2e348c24b5",
		},
		zfile.ZSTD: {
			"sha256:7d5d9e5516c584e9738efe1fcdd276809fc60bd9f82085fa6d5bf34fdf5d1d12",
			"sha256:fa0dc45a10ccd7561acc56c15eb31fbcc2200896d8b68b883664627aa324bd46",
		},
	} {
		img := run(t, convert.Options{Compression: zfile.Options{Algorithm: algorithm}}, archive(t, bottom...), archive(t, top...))
		for i, b := range img.blobs {
			if b.Digest != want[i] {
				t.Errorf("%v: layer %d of version %d is %s, want %s", algorithm, i, convert.Version, b.Digest, want[i])
			}
		}
	}
}

// TestSkip: a layer over one that was converted before is the same as one
// converted in one go.
func TestSkip(t *testing.T) {
	a := archive(t, dir("d"), file("d/1", "1"), file("d/2", strings.Repeat("2", 10000)))
	b := archive(t, file("d/1", "changed"), entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: "l", Linkname: "d/2", Mode: 0o644}})
	whole := run(t, convert.Options{}, a, b)
	c, err := convert.NewChain(convert.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := blob.OpenFile(whole.files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := c.Skip(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	l, err := c.Add(t.Context(), bytes.NewReader(b), id(1))
	if err != nil {
		t.Fatal(err)
	}
	img := image{files: whole.files[:1:1], blobs: whole.blobs[:1:1]}
	img.write(t, l)
	if !slices.Equal(img.blobs, whole.blobs) {
		t.Errorf("%v, want %v", img.blobs, whole.blobs)
	}
	if err := c.Skip(t.Context(), f); err == nil {
		t.Error("a layer was skipped above one that was added")
	}
	expect(t, img, "/d 40755", "/d/1 100644 1 "+sum("changed"),
		"/d/2 100644 2 "+sum(strings.Repeat("2", 10000)), "/l 100644 2 "+sum(strings.Repeat("2", 10000)))
}

// TestZeros: blocks of zeros are not in the blob, and read as zeros.
func TestZeros(t *testing.T) {
	const size = 256 << 20
	content := strings.Repeat("\x00", 100<<10) + "x" + strings.Repeat("\x00", 5000)
	sparse := entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: "sparse", Size: size, Mode: 0o644}}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&sparse.Header); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(w, zeroReader{}, size); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img := run(t, convert.Options{}, b.Bytes(), archive(t, file("mostly", content)))
	for _, b := range img.blobs {
		if b.Size > 16<<10 {
			t.Errorf("a blob has %d bytes", b.Size)
		}
	}
	if got := img.tree(t)[0]; got != "/mostly 100644 1 "+sum(content) {
		t.Error(got)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestRefused: what is wrong with an archive is said with the name of the entry,
// and no temporary file stays.
func TestRefused(t *testing.T) {
	whole := archive(t, file("name", strings.Repeat("content", 1000)))
	link := func(name, target string) entry {
		return entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}}
	}
	for name, c := range map[string]struct {
		archive []byte
		says    string
	}{
		"escape":         {archive(t, file("../evil", "x")), "evil"},
		"deep escape":    {archive(t, file("a/../../../evil", "x")), "evil"},
		"link out":       {archive(t, link("l", "../../etc/passwd")), "etc/passwd"},
		"link missing":   {archive(t, link("l", "nothing")), "nothing"},
		"link to itself": {archive(t, link("l", "l")), `"l"`},
		"through a file": {archive(t, file("f", ""), file("f/x", "")), "f/x"},
		"cut short":      {whole[:2000], "unexpected EOF"},
		"no archive":     {bytes.Repeat([]byte("nonsense"), 1000), "header"},
		"bad whiteout":   {archive(t, file("d/.wh.", "")), ".wh."},
		"bad whiteout 2": {archive(t, file("d/.wh...", "")), ".wh..."},
		"long name":      {archive(t, file(strings.Repeat("n", 300), "")), "nnn"},
		"too large":      {archive(t, entry{tar.Header{Typeflag: tar.TypeReg, Name: "big", Size: 2 << 20}, strings.Repeat("x", 2<<20)}), "virtual size"},
	} {
		t.Run(name, func(t *testing.T) {
			tmp := t.TempDir()
			chain, err := convert.NewChain(convert.Options{Dir: tmp, VirtualSize: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			defer chain.Close()
			if _, err := chain.Add(t.Context(), bytes.NewReader(c.archive), id(0)); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error %v does not say %q", err, c.says)
			}
			if left, _ := os.ReadDir(tmp); len(left) > 0 {
				t.Errorf("%d files are left", len(left))
			}
		})
	}
}

// TestFailures: a source that breaks, and an end of patience.
func TestFailures(t *testing.T) {
	c, err := convert.NewChain(convert.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	broken := errors.New("connection reset")
	whole := archive(t, file("name", strings.Repeat("content", 100000)))
	r := io.MultiReader(bytes.NewReader(whole[:5000]), failing{broken})
	if _, err := c.Add(t.Context(), r, id(0)); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Add(ctx, bytes.NewReader(whole), id(0)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := convert.NewChain(convert.Options{VirtualSize: 1000}); err == nil {
		t.Error("a device of 1000 bytes was taken")
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// FuzzArchive converts archives that are damaged, over a layer that is not.
func FuzzArchive(f *testing.F) {
	base := archive(f, dir("a"), file("a/b", "c"), entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "a"}})
	f.Add(base)
	f.Add(archive(f, file("l/x", "y"), file("a/.wh.b", ""), file(".wh..wh..opq", "")))
	f.Add(archive(f, entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "a/b"}}))
	tmp := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := convert.NewChain(convert.Options{Dir: tmp, VirtualSize: 16 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		l, err := c.Add(t.Context(), bytes.NewReader(base), id(0))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if l, err := c.Add(t.Context(), bytes.NewReader(b), id(1)); err == nil {
			l.Close()
		}
	})
}
