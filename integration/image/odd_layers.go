package image

import (
	"archive/tar"
	"context"
	"fmt"
)

// belowWhiteouts adds what the layers above take away.
func (e *entries) belowWhiteouts() {
	e.dir("odd/wh")
	for _, name := range []string{"file-gone", "stays", "replaced", "with-contents"} {
		e.file("odd/wh/"+name, "lower")
	}
	e.symlink("odd/wh/link-gone", "stays")
	e.add(tar.Header{Name: "odd/wh/fifo-gone", Typeflag: tar.TypeFifo}, "")
	e.dir("odd/wh/dir-gone")
	e.file("odd/wh/dir-gone/a", "lower")
	e.file("odd/wh/dir-gone/b/c", "lower")
	for _, dir := range []string{"first", "last", "implied", "only", "over-file"} {
		e.add(tar.Header{Name: "odd/wh/opaque-" + dir + "/", Typeflag: tar.TypeDir, Mode: 0o711, Uid: 3}, "")
		e.file("odd/wh/opaque-"+dir+"/old", "lower")
		e.file("odd/wh/opaque-"+dir+"/both", "lower")
		e.file("odd/wh/opaque-"+dir+"/deep/er/old", "lower")
	}
	e.dir("odd/wh/comes-back")
	e.file("odd/wh/comes-back/old", "lower")
}

// belowDirectories adds directories that the layers above add to, replace, and
// change.
func (e *entries) belowDirectories() {
	kept := attributes("odd/dirs/implied/", map[string]string{"user.keep": "an upper layer has no entry for this directory"})
	kept.Typeflag, kept.Mode, kept.Uid, kept.Gid = tar.TypeDir, 0o2711, 8, 9
	e.add(kept, "")
	e.file("odd/dirs/implied/old", "lower")
	over := attributes("odd/dirs/over/", map[string]string{"user.lower": "an upper layer has an entry without this"})
	over.Typeflag, over.Mode, over.Uid = tar.TypeDir, 0o700, 8
	e.add(over, "")
	e.file("odd/dirs/over/old", "lower")
	file := attributes("odd/dirs/file", map[string]string{"user.lower": "an upper layer has another file"})
	e.add(file, "lower")
	e.dir("odd/dirs/to-file")
	e.file("odd/dirs/to-file/hidden", "lower")
	e.file("odd/dirs/to-dir", "lower")
	e.dir("odd/dirs/to-link")
	e.file("odd/dirs/to-link/hidden", "lower")
	e.add(tar.Header{Name: "odd/dirs/across-target/", Typeflag: tar.TypeDir, Mode: 0o750, Gid: 12}, "")
	e.file("odd/dirs/across-target/old", "lower")
	e.symlink("odd/dirs/across", "across-target")
	e.symlink("odd/dirs/link-to-dir", "over")
	e.add(tar.Header{Name: "odd/dirs/node", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5}, "")
}

// oddMiddle takes away, adds and replaces.
func oddMiddle(_ context.Context, a Archive) error {
	e := &entries{Archive: a}
	e.file("odd/wh/.wh.file-gone", "")
	e.file("odd/wh/.wh.link-gone", "")
	e.file("odd/wh/.wh.fifo-gone", "")
	e.file("odd/wh/.wh.with-contents", "a whiteout may have contents")
	e.add(tar.Header{Name: "odd/wh/.wh.dir-gone", Mode: 0o600, Uid: 1}, "")
	e.file("odd/wh/.wh.comes-back", "")
	e.file("odd/wh/.wh.never-was", "")
	e.file("odd/wh/nowhere/.wh.never-was", "")
	e.file("odd/wh/.wh.replaced", "")
	e.file("odd/wh/replaced", "upper")
	// An opaque directory's mark may stand anywhere.
	e.file("odd/wh/opaque-first/.wh..wh..opq", "")
	e.dir("odd/wh/opaque-first")
	e.file("odd/wh/opaque-first/both", "upper")
	e.dir("odd/wh/opaque-last")
	e.file("odd/wh/opaque-last/both", "upper")
	e.file("odd/wh/opaque-last/deep/new", "upper")
	e.file("odd/wh/opaque-last/.wh.old", "")
	e.file("odd/wh/opaque-last/.wh..wh..opq", "")
	e.file("odd/wh/opaque-implied/.wh..wh..opq", "")
	e.file("odd/wh/opaque-implied/new", "upper")
	e.file("odd/wh/opaque-only/.wh..wh..opq", "")
	e.dir("odd/wh/opaque-new")
	e.file("odd/wh/opaque-new/.wh..wh..opq", "")
	e.file("odd/wh/opaque-new/file", "upper")
	e.file("odd/wh/opaque-over-file", "a file where a directory was")

	e.file("odd/dirs/implied/new", "upper")
	e.add(tar.Header{Name: "odd/dirs/over/", Typeflag: tar.TypeDir, Mode: 0o1755, Uid: 9}, "")
	e.file("odd/dirs/file", "upper")
	e.file("odd/dirs/to-file", "upper")
	e.dir("odd/dirs/to-dir")
	e.file("odd/dirs/to-dir/file", "upper")
	e.symlink("odd/dirs/to-link", "over")
	// The link is in another layer: where overlayfs is unpacked to, this makes
	// a directory in its place, with the owner and mode of what it points to.
	e.file("odd/dirs/across/file", "upper")
	e.dir("odd/dirs/link-to-dir")
	e.file("odd/dirs/link-to-dir/file", "upper")
	e.file("odd/dirs/node", "upper")

	e.file("odd/hard/.wh.part-gone", "")
	e.file("odd/hard/part-replaced", "upper")
	e.file("odd/hard/upper", "linked in the upper layer")
	e.link("odd/hard/upper-link", "odd/hard/upper")
	for i := range 50 {
		e.file(fmt.Sprintf("odd/large/.wh.a-name-of-usual-length-%04d", i*97), "")
	}
	e.file("odd/large/a-name-of-usual-length-4999", "replaced")
	e.file("odd/deep/level-00/level-01/level-02/file", "upper")
	return e.err
}

// oddTop changes what the middle layer did.
func oddTop(_ context.Context, a Archive) error {
	e := &entries{Archive: a}
	e.dir("odd/wh/comes-back")
	e.file("odd/wh/comes-back/new", "top")
	e.file("odd/wh/dir-gone/a", "top")
	e.file("odd/wh/file-gone", "top")
	e.file("odd/wh/opaque-only/new", "top")
	e.file("odd/wh/opaque-implied/.wh.new", "")
	e.file("odd/wh/opaque-first/deep/new", "top")
	e.dir("odd/wh/opaque-over-file")
	e.file("odd/wh/opaque-over-file/new", "top")
	e.dir("odd/dirs/to-file")
	e.file("odd/dirs/to-file/new", "top")
	e.file("odd/dirs/.wh.to-dir", "")
	e.file("odd/dirs/.wh.across-target", "")
	e.file("odd/hard/.wh.upper", "")
	e.file("odd/names/.wh."+" space ", "")
	e.file("odd/large/.wh.a-name-of-usual-length-4999", "")
	return e.err
}

// Refused is an image whose upper layer has what a tar archive may have but
// containerd's overlayfs does not unpack. It is small and all below /odd.
func Refused() Layered {
	return Layered{Name: "refused", Version: 2, Args: []string{"/bin/sh"}, Steps: []Step{
		{Rootfs: Small(), Edit: func(root string) error {
			e := editor(root)
			return edits(e.write("/odd/lower", "lower"), e.write("/odd/other", "lower"), e.write("/odd/dir/old", "lower"))
		}},
		{Write: refused},
	}}
}

func refused(ctx context.Context, a Archive) error {
	e := &entries{Archive: a}
	// The file is in the lower layer only.
	e.link("odd/link-to-lower", "odd/lower")
	// A whiteout hides what is in lower layers, wherever it stands.
	e.file("odd/other", "upper")
	e.file("odd/.wh.other", "")
	e.file("odd/.wh.dir", "")
	e.file("odd/dir/new", "upper")
	if e.err != nil {
		return e.err
	}
	const big = 256 << 20
	err := a.Sparse(ctx, "odd/sparse/gnu", big, []int64{0, 5 << 20, 100<<20 + 4000, big - 20}, "--format=gnu")
	if err != nil {
		return err
	}
	return a.Sparse(ctx, "odd/sparse/gnu-many", 3<<20, everyOther(3<<20), "--format=gnu")
}
