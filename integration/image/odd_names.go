package image

import (
	"archive/tar"
	"context"
	"fmt"
	"strings"
	"time"
)

func (e *entries) names() {
	e.dir("odd/names")
	for _, name := range []string{
		strings.Repeat("n", 255), strings.Repeat("é", 127), "a\nb", "tab\there", " space ", `back\slash`, "\"quoted'",
		"not\xff\xfeUTF-8", "日本語", "-dash", "...", ".whatever", ".wh", "a.wh.b", "star*?[x]", "colon:comma,",
	} {
		e.file("odd/names/"+name, name)
	}
	// Paths of more than 100, 256 and 1000 bytes, in each format that has them.
	for _, format := range []tar.Format{tar.FormatPAX, tar.FormatGNU} {
		p := fmt.Sprintf("odd/names/long-%d", format)
		for i := range 8 {
			p += fmt.Sprintf("/%d-%s", i, strings.Repeat("p", 150))
			e.add(tar.Header{Name: p + "/", Typeflag: tar.TypeDir, Format: format}, "")
			e.add(tar.Header{Name: p + "/file", Format: format}, "deep")
		}
		e.add(tar.Header{Name: p + "/link", Typeflag: tar.TypeLink, Linkname: p + "/file", Format: format}, "")
	}
	e.add(tar.Header{Name: "odd/names/ustar", Format: tar.FormatUSTAR}, "old")
	// The same place in other words.
	e.file("./odd/names/dot", "x")
	e.file("/odd/names/absolute", "x")
	e.file("odd//names///slashes", "x")
	e.file("odd/./names/./dots", "x")
	e.file("odd/hard/../names/up", "x")
	// A comment as git-archive writes it; it is no file.
	if e.err == nil {
		e.err = e.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header",
			PAXRecords: map[string]string{"comment": "0123456789abcdef"}})
	}
}

func (e *entries) symlinks() {
	e.dir("odd/symlinks")
	for _, n := range []int{1, 59, 60, 61, 300, 4000} {
		e.symlink(fmt.Sprintf("odd/symlinks/of-%d", n), strings.Repeat("t", n))
	}
	e.symlink("odd/symlinks/absolute", "/etc")
	e.symlink("odd/symlinks/self", "self")
	e.symlink("odd/symlinks/up", "../../../../../../etc")
	e.symlink("odd/symlinks/slash", "../names/")
	e.symlink("odd/symlinks/newline", "a\nb\xff")
	// Linux knows no permissions of links.
	e.addBare(tar.Header{Name: "odd/symlinks/mode-0", Typeflag: tar.TypeSymlink, Linkname: "x"}, "")
	e.add(tar.Header{Name: "odd/symlinks/time", Typeflag: tar.TypeSymlink, Linkname: "x", Mode: 0o777, ModTime: time.Unix(1_222_222_222, 7)}, "")
	// What is written through a link goes where it points.
	e.add(tar.Header{Name: "odd/symlinks/real/", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 7}, "")
	e.symlink("odd/symlinks/through", "real")
	e.file("odd/symlinks/through/file", "written through a link")
	e.symlink("odd/symlinks/absolute-through", "/odd/symlinks/real")
	e.file("odd/symlinks/absolute-through/new/file", "written through an absolute link")
}

func (e *entries) times() {
	e.dir("odd/times")
	for i, t := range []time.Time{
		time.Unix(0, 0), time.Unix(0, 1), time.Unix(1, 999_999_999), time.Unix(-1, 0), time.Unix(-1_000_000_000, 5),
		time.Unix(1<<31-1, 0), time.Unix(1<<31, 0), time.Unix(1<<32, 123_456_789), time.Unix(7_258_118_400, 1),
		time.Unix(1<<33, 0), time.Unix(10_000_000_000, 0), // after 2262: containerd makes it 0
	} {
		e.add(tar.Header{Name: fmt.Sprintf("odd/times/%02d", i), ModTime: t}, "x")
		e.add(tar.Header{Name: fmt.Sprintf("odd/times/dir-%02d/", i), ModTime: t, Typeflag: tar.TypeDir}, "")
	}
	// The times of a directory are set when all that is in it is there.
	e.add(tar.Header{Name: "odd/times/before/", ModTime: time.Unix(1_333_333_333, 3), Typeflag: tar.TypeDir}, "")
	e.file("odd/times/before/file", "x")
}

func (e *entries) sizes() {
	e.dir("odd/sizes")
	for _, n := range []int{0, 1, 511, 512, 2047, 4095, 4096, 4097, 8192, 8193, 3*4096 + 100, 16 * 4096, 16*4096 + 1, 1 << 20, 1<<20 + 1} {
		e.file(fmt.Sprintf("odd/sizes/%d", n), numbers(n))
	}
	e.file("odd/sizes/zeros", strings.Repeat("\x00", 3*4096))
	e.file("odd/sizes/ends-in-zeros", "x"+strings.Repeat("\x00", 5*4096))
}

// numbers returns n bytes no two blocks of which are equal.
func numbers(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintln(&b, i)
	}
	return b.String()[:n]
}

// repeated has several entries for one path; the last one counts.
func (e *entries) repeated() {
	e.dir("odd/repeated")
	e.add(tar.Header{Name: "odd/repeated/file", Mode: 0o755, Uid: 9}, "first and longer")
	e.file("odd/repeated/file", "second")
	first := attributes("odd/repeated/dir/", map[string]string{"user.first": "stays: directories are merged"})
	first.Typeflag, first.Mode = tar.TypeDir, 0o700
	e.add(first, "")
	e.file("odd/repeated/dir/between", "x")
	e.dir("odd/repeated/dir")
	e.file("odd/repeated/file-then-dir", "x")
	e.dir("odd/repeated/file-then-dir")
	e.dir("odd/repeated/dir-then-file")
	e.file("odd/repeated/dir-then-file/goes", "x")
	e.file("odd/repeated/dir-then-file", "a file")
	e.dir("odd/repeated/link-target")
	e.symlink("odd/repeated/link-then-dir", "link-target")
	e.dir("odd/repeated/link-then-dir")
	e.file("odd/repeated/link-then-dir/inside", "not through the link")
	e.file("odd/repeated/linked", "the first contents")
	e.link("odd/repeated/linked-too", "odd/repeated/linked")
	e.file("odd/repeated/linked", "other contents: the link keeps the first")
}

// trees has directories with many entries, deep ones, and such without an entry.
func (e *entries) trees() {
	e.file("odd/no-parent/for/this/file", "x")
	e.dir("odd/empty")
	e.dir("odd/large")
	for i := range 5000 {
		e.file(fmt.Sprintf("odd/large/a-name-of-usual-length-%04d", i), fmt.Sprint(i))
	}
	p := "odd/deep"
	for i := range 30 {
		e.dir(p)
		e.file(p+"/file", fmt.Sprint("level ", i))
		p += fmt.Sprintf("/level-%02d", i)
	}
	e.dir("odd/wide")
	for i := range 400 {
		e.dir(fmt.Sprintf("odd/wide/%03d", i))
	}
}

// sparse adds files with holes in each form that POSIX archives have for them.
func sparse(ctx context.Context, a Archive) error {
	const big, small = 256 << 20, 3 << 20
	for _, s := range []struct {
		name    string
		size    int64
		offsets []int64
		version string
	}{
		{"1.0", big, []int64{0, 5 << 20, 100<<20 + 4000, big - 20}, "1.0"},
		{"1.0-many", small, everyOther(small), "1.0"},
		{"0.1", small, []int64{0, 1 << 20}, "0.1"},
		{"0.1-many", small, everyOther(small), "0.1"},
		{"0.0", small, []int64{2 << 20}, "0.0"},
		{"hole", small, nil, "1.0"},
	} {
		if err := a.Sparse(ctx, "odd/sparse/"+s.name, s.size, s.offsets, PAX("--sparse-version="+s.version)...); err != nil {
			return err
		}
	}
	return nil
}

// everyOther returns offsets such that holes and data take turns.
func everyOther(size int64) []int64 {
	var out []int64
	for off := int64(0); off < size; off += 64 << 10 {
		out = append(out, off)
	}
	return out
}
