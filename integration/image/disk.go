package image

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// FSType is the file system in a disk image.
type FSType string

const (
	// Ext4 is what images usually have.
	Ext4 FSType = "ext4"
	// Erofs is uncompressed: the layer around it is compressed.
	Erofs FSType = "erofs"
)

const (
	fsUUID   = "7265cafe-0000-4000-8000-000000000001"
	hashSeed = "7265cafe-0000-4000-8000-000000000002"
)

// MakeDisk writes a disk image with a file system that holds the tree at root
// to the new sparse file path. Equal trees give equal images.
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
	default:
		return fmt.Errorf("making a disk image: unknown file system %q", fsType)
	}
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
