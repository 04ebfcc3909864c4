package tree

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Record is all that a program could learn about one path of a file system,
// but for access and change times, inode numbers and allocated blocks.
type Record struct {
	// Path begins with a slash; the root's is "/".
	Path string
	// Mode is st_mode: type and permissions. It is 0 for a name that a directory
	// lists but that is not there.
	Mode     uint32
	UID, GID uint32
	// Nlink is the file system's count.
	Nlink uint64
	// Sec and Nsec are the modification time.
	Sec, Nsec int64
	// Size is in bytes; 0 for what has no contents.
	Size int64
	// Rdev is the number of a device node.
	Rdev uint64
	// Link is the target of a symbolic link.
	Link string
	// Sum is the SHA-256 of a regular file's contents, in hexadecimal.
	Sum string
	// Xattrs maps the names of extended attributes of all name spaces to their
	// values. One that is listed but can't be read has its error as the value.
	Xattrs map[string]string
	// SameAs is the first path, in the order of Walk, of those that are links to
	// the same file; "" if there is no other.
	SameAs string
}

// IsDir reports whether the record is a directory's.
func (r Record) IsDir() bool { return r.Mode&unix.S_IFMT == unix.S_IFDIR }

// IsRegular reports whether the record is a regular file's.
func (r Record) IsRegular() bool { return r.Mode&unix.S_IFMT == unix.S_IFREG }

// inode names a file within one walk.
type inode struct{ dev, ino uint64 }

// Walk returns a record for each path at or below root, each directory before
// what is in it and siblings in the order of their bytes. It does not cross
// into other file systems mounted below root.
func Walk(root string) ([]Record, error) {
	var top unix.Stat_t
	if err := unix.Lstat(root, &top); err != nil {
		return nil, fmt.Errorf("walking %s: %w", root, err)
	}
	var out []Record
	paths := map[inode][]int{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		name := "/" + strings.TrimPrefix(strings.TrimPrefix(p, root), "/")
		switch err := unix.Lstat(p, &st); {
		case errors.Is(err, unix.ENOENT):
			out = append(out, Record{Path: name})
			return nil
		case err != nil:
			return fmt.Errorf("stat %q: %w", p, err)
		}
		if d.IsDir() && st.Dev != top.Dev {
			return filepath.SkipDir
		}
		r, err := record(p, &st)
		if err != nil {
			return fmt.Errorf("%q: %w", p, err)
		}
		r.Path = name
		if !r.IsDir() {
			id := inode{st.Dev, st.Ino}
			paths[id] = append(paths[id], len(out))
		}
		out = append(out, r)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("walking %s: %w", root, err)
	}
	for _, same := range paths {
		for _, i := range same {
			if len(same) > 1 {
				out[i].SameAs = out[same[0]].Path
			}
		}
	}
	return out, nil
}

func record(path string, st *unix.Stat_t) (Record, error) {
	r := Record{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Nlink: st.Nlink, Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		r.Size = st.Size
		r.Sum, err = sum(path)
	case unix.S_IFLNK:
		r.Size = st.Size
		r.Link, err = os.Readlink(path)
	case unix.S_IFCHR, unix.S_IFBLK:
		r.Rdev = st.Rdev
	}
	if err != nil {
		return r, err
	}
	r.Xattrs, err = attributes(path)
	return r, err
}

// attributes reads the extended attributes of a path, not following links.
func attributes(path string) (map[string]string, error) {
	buf := make([]byte, 64<<10) // the most that Linux has, of names and of a value
	n, err := unix.Llistxattr(path, buf)
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing attributes: %w", err)
	}
	out := map[string]string{}
	for _, name := range strings.Split(string(bytes.TrimSuffix(buf[:n], []byte{0})), "\x00") {
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			out[name] = "can't be read: " + err.Error()
			continue
		}
		out[name] = string(buf[:n])
	}
	return out, nil
}
