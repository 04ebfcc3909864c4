package tree

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Unpacking is when a root file system was put together. A directory's
// modification time in it is nobody's: containerd leaves the time of unpacking
// on a directory that a layer changes without an entry of its own for it.
type Unpacking struct{ Begin, End time.Time }

func (u Unpacking) touched(r Record) bool {
	t := time.Unix(r.Sec, r.Nsec)
	// File systems stamp with a clock that ticks some hundred times a second.
	return r.IsDir() && !t.Before(u.Begin.Add(-time.Second)) && !t.After(u.End.Add(time.Second))
}

// Compare returns a line for each difference of got from want, which is what
// overlayfs shows of an image that was unpacked during u. It leaves out what is
// overlayfs's own:
//
//   - a directory that is merged from several layers reports one link; what it
//     has is two and one for each directory in it,
//   - a file some of whose names are hidden by upper layers still counts them; a
//     copy may count the names that are left,
//   - a whiteout in a directory that is in one layer only is listed, although
//     there is no file of that name,
//   - times, links and attributes of the root itself, which belongs to the node,
//   - times of directories that were touched by the unpacking (see Unpacking).
func Compare(want, got []Record, u Unpacking) []string {
	var out []string
	c := comparison{want: index(want), got: index(got), names: map[string]uint64{}, unpacking: u}
	for _, w := range want {
		c.names[w.SameAs]++
	}
	for _, w := range want {
		g, found := c.got[w.Path]
		switch {
		case !found && w.Mode == 0:
			continue
		case !found:
			out = append(out, fmt.Sprintf("%q: missing (mode %06o, size %d)", w.Path, w.Mode, w.Size))
			continue
		}
		if d := c.differences(w, g); len(d) > 0 {
			out = append(out, fmt.Sprintf("%q: %s", w.Path, strings.Join(d, "; ")))
		}
	}
	for _, g := range got {
		if _, found := c.want[g.Path]; !found {
			out = append(out, fmt.Sprintf("%q: should not be there (mode %06o, size %d)", g.Path, g.Mode, g.Size))
		}
	}
	return out
}

type comparison struct {
	want, got map[string]Record
	names     map[string]uint64 // of wanted files with several, by the first
	unpacking Unpacking
}

// index returns the records by path, with the links that directories have.
func index(records []Record) map[string]Record {
	out := make(map[string]Record, len(records))
	subdirectories := map[string]uint64{}
	for _, r := range records {
		if r.IsDir() && r.Path != "/" {
			subdirectories[r.Path[:max(1, strings.LastIndexByte(r.Path, '/'))]]++
		}
	}
	for _, r := range records {
		if r.IsDir() && r.Nlink == 1 {
			r.Nlink = 2 + subdirectories[r.Path]
		}
		out[r.Path] = r
	}
	return out
}

func (c comparison) differences(want, got Record) []string {
	want, got = c.want[want.Path], c.got[got.Path]
	var out []string
	differ := func(what string, w, g any) {
		if w != g {
			out = append(out, fmt.Sprintf("%s %v, want %v", what, g, w))
		}
	}
	differ("mode", fmt.Sprintf("%06o", want.Mode), fmt.Sprintf("%06o", got.Mode))
	differ("uid", want.UID, got.UID)
	differ("gid", want.GID, got.GID)
	if want.Path == "/" {
		return out
	}
	differ("size", want.Size, got.Size)
	differ("device", want.Rdev, got.Rdev)
	differ("target", fmt.Sprintf("%q", want.Link), fmt.Sprintf("%q", got.Link))
	differ("contents", want.Sum, got.Sum)
	differ("hard link of", want.SameAs, got.SameAs)
	if got.Nlink != c.visible(want) {
		differ("links", want.Nlink, got.Nlink)
	}
	if !c.unpacking.touched(want) {
		differ("modified", fmt.Sprintf("%d.%09d", want.Sec, want.Nsec), fmt.Sprintf("%d.%09d", got.Sec, got.Nsec))
	}
	return append(out, attributeDifferences(want.Xattrs, got.Xattrs)...)
}

// visible counts the names of a file, 0 for a directory.
func (c comparison) visible(r Record) uint64 {
	if r.IsDir() {
		return 0
	}
	if r.SameAs == "" {
		return 1
	}
	return c.names[r.SameAs]
}

func attributeDifferences(want, got map[string]string) []string {
	all := maps.Clone(want)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, got)
	var out []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		w, wanted := want[name]
		g, found := got[name]
		switch {
		case !found:
			out = append(out, fmt.Sprintf("attribute %s missing", name))
		case !wanted:
			out = append(out, fmt.Sprintf("attribute %s=%.40q should not be there", name, g))
		case w != g:
			out = append(out, fmt.Sprintf("attribute %s is %.40q (%d bytes), want %.40q (%d bytes)", name, g, len(g), w, len(w)))
		}
	}
	return out
}
