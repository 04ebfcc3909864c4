package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/loopdev"
)

// FSType is the file system in a disk image.
type FSType string

const (
	// Ext4 is what images usually have.
	Ext4 FSType = "ext4"
	// Erofs is uncompressed: the layer around it is compressed.
	Erofs FSType = "erofs"
	// XFS is what images can have, too; it is filled through the kernel.
	XFS FSType = "xfs"
)

const (
	fsUUID   = "7265cafe-0000-4000-8000-000000000001"
	hashSeed = "7265cafe-0000-4000-8000-000000000002"
)

// MakeDisk writes a disk image with a file system that holds the tree at root
// to the new sparse file path. Equal trees give equal images, but for XFS.
func MakeDisk(ctx context.Context, fsType FSType, root, path string) error {
	var argv []string
	switch fsType {
	case Ext4:
		size, err := ext4Size(root)
		if err != nil {
			return err
		}
		// Features and geometry as the builders of overlaybd images use.
		argv = []string{"mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256", "-m", "0",
			"-O", "^has_journal,sparse_super,flex_bg", "-G", "1", "-U", fsUUID,
			"-E", "hash_seed=" + hashSeed + ",lazy_itable_init=0,root_owner=0:0",
			"-d", root, path, fmt.Sprint(size>>10) + "k"}
	case Erofs:
		argv = []string{"mkfs.erofs", "--quiet", "-U", fsUUID, "-T", fmt.Sprint(epoch.Unix()), path, root}
	case XFS:
		return makeXFS(ctx, root, path)
	default:
		return fmt.Errorf("making a disk image: unknown file system %q", fsType)
	}
	return mkfs(ctx, argv)
}

func mkfs(ctx context.Context, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(),
		"PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin",
		fmt.Sprintf("E2FSPROGS_FAKE_TIME=%d", epoch.Unix()),
		fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch.Unix()))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making a disk image: %s: %w: %s", argv[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

// minXFS is the smallest file system that mkfs.xfs makes, in bytes.
const minXFS = 300 << 20

// makeXFS makes a disk image with XFS, which no tool fills from a tree with all
// that files have: it is mounted and copied to.
func makeXFS(ctx context.Context, root, path string) error {
	size, err := ext4Size(root) // a bound for this one, too, with some more for its log
	if err != nil {
		return err
	}
	if err := mkfs(ctx, []string{"mkfs.xfs", "-q", "-m", "uuid=" + fsUUID, "-d", fmt.Sprintf("file,name=%s,size=%d", path, max(minXFS, size+64<<20))}); err != nil {
		return err
	}
	return onMount(path, XFS, func(dir string) error {
		if out, err := exec.CommandContext(ctx, "cp", "-a", root+"/.", dir).CombinedOutput(); err != nil {
			return fmt.Errorf("copying the tree: %w: %s", err, strings.TrimSpace(string(out)))
		}
		return nil
	})
}

// onMount runs f with the folder that a disk image is mounted on.
func onMount(disk string, fsType FSType, f func(dir string) error) (err error) {
	dev, err := loopdev.AttachWritable(disk)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dev.Detach()) }()
	dir, err := os.MkdirTemp("", "reprise-disk-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	options := ""
	if fsType == XFS {
		options = "nouuid" // an image made from this one may be mounted
	}
	if err := unix.Mount(dev.Path, dir, string(fsType), 0, options); err != nil {
		return fmt.Errorf("mounting the disk image: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, 0)) }()
	return f(dir)
}

// ext4Size returns the size in bytes of a file system with room for root:
// data in blocks, an inode for each file, and some spare.
func ext4Size(root string) (int64, error) {
	var blocks, inodes int64
	err := filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		inodes++
		blocks += (info.Size() + 4095) / 4096
		return nil
	})
	size := blocks*4096*5/4 + inodes*1024 + 32<<20
	return (size + 1<<20 - 1) &^ (1<<20 - 1), err
}
