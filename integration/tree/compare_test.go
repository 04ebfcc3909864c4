package tree_test

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/tree"
)

var unpacking = tree.Unpacking{Begin: time.Unix(1000, 0), End: time.Unix(1010, 0)}

// sample is a small root file system as overlayfs shows it: /d is merged from
// two layers, and so has one link; one of three names of /d/a is hidden.
func sample() []tree.Record {
	const dir, file = unix.S_IFDIR | 0o755, unix.S_IFREG | 0o644
	return []tree.Record{
		{Path: "/", Mode: dir, Nlink: 1, Sec: 1005},
		{Path: "/d", Mode: dir, Nlink: 1, Sec: 1005},
		{Path: "/d/a", Mode: file, Nlink: 3, Sec: 5, Size: 1, Sum: "s", SameAs: "/d/a"},
		{Path: "/d/b", Mode: file, Nlink: 3, Sec: 5, Size: 1, Sum: "s", SameAs: "/d/a"},
		{Path: "/d/e", Mode: dir, Nlink: 2, Sec: 6},
		{Path: "/d/l", Mode: unix.S_IFLNK | 0o777, Nlink: 1, Sec: 7, Nsec: 8, Size: 1, Link: "a"},
		{Path: "/d/n", Mode: unix.S_IFCHR | 0o600, Nlink: 1, Sec: 1005, Rdev: unix.Mkdev(1, 3)},
		{Path: "/d/x", Mode: file, Nlink: 1, Sec: 9, Xattrs: map[string]string{"user.a": "1"}},
	}
}

// TestCompareExcuses has what differs by overlayfs's own doing only.
func TestCompareExcuses(t *testing.T) {
	want, got := append(sample(), tree.Record{Path: "/listed"}), sample()
	got[0].Sec, got[0].Nlink = 1, 3
	got[1].Sec, got[1].Nlink = 1, 3
	got[2].Nlink, got[3].Nlink = 2, 2
	for _, d := range tree.Compare(want, got, unpacking) {
		t.Error(d)
	}
}

func TestCompareFinds(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func([]tree.Record) []tree.Record
		want   string
	}{
		{"missing", func(r []tree.Record) []tree.Record { return r[:len(r)-1] }, `"/d/x": missing`},
		{"added", func(r []tree.Record) []tree.Record { return append(r, tree.Record{Path: "/z"}) }, `"/z": should not be there`},
		{"listed only", func(r []tree.Record) []tree.Record { return append(r, tree.Record{Path: "/z"}) }, `"/z": should not be there`},
		{"gone but listed", func(r []tree.Record) []tree.Record { r[6] = tree.Record{Path: "/d/n"}; return r }, `"/d/n": mode 000000`},
		{"root's mode", func(r []tree.Record) []tree.Record { r[0].Mode = unix.S_IFDIR | 0o700; return r }, `"/": mode`},
		{"type", func(r []tree.Record) []tree.Record { r[7].Mode = unix.S_IFIFO | 0o644; return r }, `"/d/x": mode`},
		{"owner", func(r []tree.Record) []tree.Record { r[7].UID = 1; return r }, "uid 1, want 0"},
		{"group", func(r []tree.Record) []tree.Record { r[1].GID = 1; return r }, "gid 1, want 0"},
		{"links of a directory", func(r []tree.Record) []tree.Record { r[1].Nlink = 2; return r }, "links 2, want 3"},
		{"links of a file", func(r []tree.Record) []tree.Record { r[2].Nlink = 1; return r }, "links 1, want 3"},
		{"time of a file", func(r []tree.Record) []tree.Record { r[7].Sec = 10; return r }, "modified 10.0"},
		{"time of a node in the window", func(r []tree.Record) []tree.Record { r[6].Sec = 1006; return r }, "modified 1006.0"},
		{"time of a directory", func(r []tree.Record) []tree.Record { r[4].Nsec = 1; return r }, "modified 6.000000001"},
		{"target", func(r []tree.Record) []tree.Record { r[5].Link = "b"; return r }, `target "b", want "a"`},
		{"size", func(r []tree.Record) []tree.Record { r[7].Size = 1; return r }, "size 1"},
		{"device", func(r []tree.Record) []tree.Record { r[6].Rdev++; return r }, "device"},
		{"contents", func(r []tree.Record) []tree.Record { r[7].Sum = "t"; return r }, "contents t"},
		{"hard link", func(r []tree.Record) []tree.Record { r[3].SameAs = ""; return r }, "hard link of"},
		{"attribute missing", func(r []tree.Record) []tree.Record { r[7].Xattrs = nil; return r }, "user.a missing"},
		{"attribute added", func(r []tree.Record) []tree.Record { r[2].Xattrs = map[string]string{"user.b": ""}; return r }, "user.b"},
		{"attribute changed", func(r []tree.Record) []tree.Record {
			r[7].Xattrs = map[string]string{"user.a": "2"}
			return r
		}, `user.a is "2"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := tree.Compare(sample(), c.change(sample()), unpacking)
			if len(got) != 1 || !strings.Contains(got[0], c.want) {
				t.Errorf("the differences are %q, want one with %q", got, c.want)
			}
		})
	}
}
