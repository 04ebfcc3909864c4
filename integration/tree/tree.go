// Package tree lists a file system with all that a container could see of it,
// one line a file, so that two of them can be compared.
package tree

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// List returns a line for each file at or below root, sorted by path, with
// tab-separated columns: path, mode (octal, with type), uid, gid, size, what
// it holds (SHA-256, ->target, dev:major:minor or -), extended attributes
// (name=hex,...), link count, modification time (Unix seconds).
func List(root string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(p, root)
		if name == "" {
			name = "/"
		}
		line, err := describe(p)
		if err != nil {
			return fmt.Errorf("listing %q: %w", name, err)
		}
		out = append(out, escape(name)+"\t"+line)
		return nil
	})
	slices.Sort(out)
	return out, err
}

func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\t", `\t`).Replace(s)
}

func describe(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	size, holds := st.Size, "-"
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		holds, err = sum(path)
	case unix.S_IFLNK:
		holds, err = os.Readlink(path)
		holds = "->" + escape(holds)
	case unix.S_IFCHR, unix.S_IFBLK:
		size, holds = 0, fmt.Sprintf("dev:%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	default:
		size = 0
	}
	if err != nil {
		return "", err
	}
	attrs, err := xattrs(path)
	return fmt.Sprintf("%06o\t%d\t%d\t%d\t%s\t%s\t%d\t%d",
		st.Mode, st.Uid, st.Gid, size, holds, attrs, st.Nlink, st.Mtim.Sec), err
}

func sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

func xattrs(path string) (string, error) {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, names)
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return "-", nil
	}
	if err != nil {
		return "", err
	}
	var out []string
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", fmt.Errorf("reading attribute %s: %w", name, err)
		}
		out = append(out, fmt.Sprintf("%s=%x", name, value[:n]))
	}
	slices.Sort(out)
	return strings.Join(out, ","), nil
}
