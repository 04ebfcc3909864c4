package image

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/tree"
)

// Names of the OCI image specification's change sets.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// difference is what a build step did to a tree.
type difference struct {
	root          string
	before, after map[string]tree.Record
	order         []string // of after
	opaque        map[string]bool
}

// diff compares two walks of the tree at root. Directories listed as opaque
// are written whole, whatever was below them.
func diff(root string, before, after []tree.Record, opaque []string) difference {
	d := difference{root: root, before: map[string]tree.Record{}, after: map[string]tree.Record{}, opaque: map[string]bool{}}
	for _, r := range before {
		d.before[r.Path] = r
	}
	for _, r := range after {
		d.after[r.Path] = r
		d.order = append(d.order, r.Path)
	}
	for _, p := range opaque {
		d.opaque[p] = true
	}
	return d
}

// write adds the entries of the layer: a directory before what is in it, its
// whiteouts first.
func (d difference) write(a Archive) error {
	gone := d.whiteouts()
	groups := d.changedGroups()
	written := map[string]bool{} // groups that have their first entry
	for _, p := range d.order {
		r := d.after[p]
		if p != "/" && (d.changed(r) || groups[r.SameAs]) {
			if err := d.entry(a, r, written[r.SameAs]); err != nil {
				return err
			}
			if r.SameAs != "" {
				written[r.SameAs] = true
			}
		}
		if d.opaque[p] {
			gone[p] = []string{opaque}
		}
		for _, name := range gone[p] {
			h := tar.Header{Name: strings.TrimPrefix(path.Join(p, name), "/"), Mode: 0o600, ModTime: time.Unix(0, 0)}
			if err := a.Add(h, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// whiteouts maps directories that are left to the names of the whiteouts in
// them.
func (d difference) whiteouts() map[string][]string {
	out := map[string][]string{}
	for p := range d.before {
		if _, found := d.after[p]; found || p == "/" {
			continue
		}
		dir := path.Dir(p)
		if d.after[dir].IsDir() && d.before[dir].IsDir() && !d.hidden(dir) {
			out[dir] = append(out[dir], whiteout+path.Base(p))
		}
	}
	for _, names := range out {
		slices.Sort(names)
	}
	return out
}

// hidden reports whether what was at or below p goes by an opaque directory.
func (d difference) hidden(p string) bool {
	for ; p != "/"; p = path.Dir(p) {
		if d.opaque[p] {
			return true
		}
	}
	return false
}

// changedGroups returns the files with several names one of which changed: a
// layer can't link to a file that it does not hold.
func (d difference) changedGroups() map[string]bool {
	out := map[string]bool{}
	for _, r := range d.after {
		if r.SameAs != "" && d.changed(r) {
			out[r.SameAs] = true
		}
	}
	return out
}

func (d difference) changed(r tree.Record) bool {
	old, found := d.before[r.Path]
	if !found || d.hidden(r.Path) {
		return true
	}
	// Links and sizes of directories change with their contents.
	old.Nlink, r.Nlink = 0, 0
	return !reflect.DeepEqual(old, r)
}

// entry adds a file; linked if its group has had an entry.
func (d difference) entry(a Archive, r tree.Record, linked bool) error {
	h := tar.Header{
		Name:    strings.TrimPrefix(r.Path, "/"),
		Mode:    int64(r.Mode & 0o7777),
		Uid:     int(r.UID),
		Gid:     int(r.GID),
		ModTime: time.Unix(r.Sec, r.Nsec),
		Format:  tar.FormatPAX,
	}
	if len(r.Xattrs) > 0 {
		h.PAXRecords = map[string]string{}
	}
	for name, value := range r.Xattrs {
		h.PAXRecords["SCHILY.xattr."+name] = value
	}
	if linked {
		h.Typeflag, h.Linkname = tar.TypeLink, strings.TrimPrefix(r.SameAs, "/")
		return a.WriteHeader(&h)
	}
	switch r.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case unix.S_IFLNK:
		h.Typeflag, h.Linkname = tar.TypeSymlink, r.Link
	case unix.S_IFREG:
		return d.file(a, h, r)
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if r.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(r.Rdev)), int64(unix.Minor(r.Rdev))
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default:
		return fmt.Errorf("adding %q: mode %o has no place in a layer", r.Path, r.Mode)
	}
	return a.WriteHeader(&h)
}

func (d difference) file(a Archive, h tar.Header, r tree.Record) error {
	h.Typeflag, h.Size = tar.TypeReg, r.Size
	if err := a.WriteHeader(&h); err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(d.root, r.Path))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(a, f)
	return err
}
