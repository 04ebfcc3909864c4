package kernel

import (
	"os"
	"path/filepath"
	"strings"
)

// LoopFile returns the path of the file that the loop device dev ("/dev/loop3")
// is attached to, or "" if it is free. The path is the one the kernel sees,
// which lacks the mount point once that has been unmounted lazily.
func LoopFile(dev string) string {
	p, err := os.ReadFile(loopDir(dev, "loop/backing_file"))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(p), "\n")
}

// LoopDirect reports whether the loop device dev reads its file with direct
// I/O.
func LoopDirect(dev string) bool {
	p, err := os.ReadFile(loopDir(dev, "loop/dio"))
	return err == nil && strings.TrimSpace(string(p)) == "1"
}

// LoopReadahead returns the sysfs file with the readahead of the loop device
// dev in KiB.
func LoopReadahead(dev string) string { return loopDir(dev, "queue/read_ahead_kb") }

// Ext4InodeReadahead returns the sysfs file with the inode table blocks that
// the ext4 on the loop device dev reads ahead.
func Ext4InodeReadahead(dev string) string {
	return filepath.Join("/sys/fs/ext4", filepath.Base(dev), "inode_readahead_blks")
}

func loopDir(dev, name string) string {
	return filepath.Join("/sys/block", filepath.Base(dev), name)
}

// IsLoop reports whether source is the name of a loop device.
func IsLoop(source string) bool {
	return strings.HasPrefix(source, "/dev/loop") && source != "/dev/loop-control"
}
