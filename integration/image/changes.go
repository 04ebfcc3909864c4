package image

import (
	"archive/tar"
	"context"
	"fmt"
	"strings"
)

// Pinned is an image of some files that depends on nothing but this package:
// its layers are plain tar archives, made without any tool.
func Pinned() Layered {
	return Layered{Name: "pinned", Version: 2, Args: []string{"/none"}, Steps: []Step{
		{Write: pinnedBottom, Compression: Plain}, {Write: oddMiddle, Compression: Plain}, {Write: oddTop, Compression: Plain},
	}}
}

func pinnedBottom(_ context.Context, a Archive) error {
	e := &entries{Archive: a}
	e.dir("odd")
	e.belowWhiteouts()
	e.belowDirectories()
	e.hardLinks()
	e.extendedAttributes()
	e.modesAndOwners()
	e.nodes()
	e.symlinks()
	e.times()
	e.sizes()
	e.trees()
	return e.err
}

// OneFile returns a layer with a single file.
func OneFile(name, data string) func(context.Context, Archive) error {
	return func(_ context.Context, a Archive) error {
		e := &entries{Archive: a}
		e.file(name, data)
		return e.err
	}
}

// Crowd is the number of files in the bottom layer of Changes.
const Crowd = 35_000

// crowdFolders are directories by the number of files in them; the rest of the
// files are in directories of a hundred.
var crowdFolders = []int{1, 10, 100, 1000, 10_000}

// Change is a layer that changes next to nothing.
type Change struct {
	Name  string
	write func(*entries)
}

// SmallChanges are what one command of a build may do, each in directories
// with few and with many files.
func SmallChanges() []Change {
	var out []Change
	for _, n := range crowdFolders {
		dir := fmt.Sprintf("crowd/of-%d", n)
		first, last := crowdName(n, 0), crowdName(n, n-1)
		out = append(out,
			Change{fmt.Sprintf("a file of %d gets other contents", n), func(e *entries) { e.file(last, "other contents, longer than before") }},
			Change{fmt.Sprintf("a file of %d gets other permissions", n), func(e *entries) {
				e.add(tar.Header{Name: first, Mode: 0o600}, crowdText(first))
			}},
			Change{fmt.Sprintf("a file is added to %d", n), func(e *entries) { e.file(dir+"/a-new-file-among-the-others", "new") }},
			Change{fmt.Sprintf("one of %d files goes", n), func(e *entries) { e.file(dir+"/.wh."+first[strings.LastIndexByte(first, '/')+1:], "") }},
			Change{fmt.Sprintf("a directory of %d gets other permissions", n), func(e *entries) {
				e.add(tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o700}, "")
			}},
		)
	}
	return append(out,
		Change{"a directory is added", func(e *entries) { e.dir("crowd/one-more"); e.file("crowd/one-more/file", "new") }},
		Change{"a directory of 100 goes", func(e *entries) { e.file("crowd/rest/.wh.007", "") }},
		Change{"a long attribute", func(e *entries) {
			h := attributes("crowd/attributes", map[string]string{"user.long": strings.Repeat("long", 800)})
			e.add(h, "with an attribute")
		}},
		Change{"a file at the top", func(e *entries) { e.file("top", "new") }},
	)
}

// Changes is an image with Crowd files in its bottom layer and each of the
// small changes in a layer of its own.
func Changes() Layered {
	i := Layered{Name: "changes", Version: 1, Args: []string{"/none"}, Steps: []Step{{Write: crowd}}}
	for _, c := range SmallChanges() {
		i.Steps = append(i.Steps, Step{Write: func(_ context.Context, a Archive) error {
			e := &entries{Archive: a}
			c.write(e)
			return e.err
		}})
	}
	return i
}

func crowdName(n, i int) string {
	return fmt.Sprintf("crowd/of-%d/some-file-of-usual-name-length-%05d.txt", n, i)
}

// crowdText is what a file holds: some hundred bytes to a few thousand.
func crowdText(name string) string {
	return strings.Repeat(name+"\n", 5+len(name)*int(name[len(name)-5])%40)
}

func crowd(_ context.Context, a Archive) error {
	e := &entries{Archive: a}
	e.dir("crowd")
	left := Crowd
	for _, n := range crowdFolders {
		e.dir(fmt.Sprintf("crowd/of-%d", n))
		for i := range n {
			e.file(crowdName(n, i), crowdText(crowdName(n, i)))
		}
		left -= n
	}
	e.dir("crowd/rest")
	for d := 0; left > 0; d++ {
		e.dir(fmt.Sprintf("crowd/rest/%03d", d))
		for i := 0; i < 100 && left > 0; i++ {
			name := fmt.Sprintf("crowd/rest/%03d/file-%02d.txt", d, i)
			e.file(name, crowdText(name))
			left--
		}
	}
	return e.err
}

// Thirty is an image of thirty layers with some packages in each.
func Thirty() Layered {
	whole := ThirtyInOne().Steps[0]
	whole.Of = 30
	i := Layered{Name: "thirty", Version: 2, Args: []string{"/bin/sh", "-c", "exit"}}
	for whole.Part = range whole.Of {
		i.Steps = append(i.Steps, whole)
	}
	return i
}

// ThirtyInOne is an image of one layer with the same files.
func ThirtyInOne() Layered {
	r := Small()
	r.Packages = append(r.Packages, thirty...)
	return Layered{Name: "thirty-in-one", Version: 1, Args: []string{"/bin/sh", "-c", "exit"}, Steps: []Step{{Rootfs: r}}}
}

// thirty are packages, which with what they need are more than a hundred.
var thirty = []string{
	"libc6", "coreutils", "bash", "grep", "sed", "tar", "gzip", "findutils", "diffutils",
	"perl-base", "tzdata", "openssl", "ca-certificates", "curl", "less", "file", "nano", "bc", "gawk",
	"xz-utils", "zstd", "jq", "sqlite3", "python3-minimal", "perl", "git", "vim-runtime", "vim", "python3",
}
