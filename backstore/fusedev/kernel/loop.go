package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Loop is a loop device that is attached to a file.
type Loop struct {
	Dev       string // "/dev/loop3"
	File      string // see LoopFile
	Autoclear bool   // it frees itself when it is closed
}

// Loops returns the loop devices that are attached to files in the directory
// dir.
func Loops(dir string) ([]Loop, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, fmt.Errorf("listing loop devices: %w", err)
	}
	var loops []Loop
	for _, f := range files {
		dev := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(f)))
		if file := LoopFile(dev); filepath.Dir(file) == dir {
			loops = append(loops, Loop{Dev: dev, File: file, Autoclear: LoopAutoclear(dev)})
		}
	}
	return loops, nil
}

// LoopFile returns the path of the file that the loop device dev ("/dev/loop3")
// is attached to, or "" if it is free. The path is the one the kernel sees,
// which lacks the mount point once that has been unmounted lazily.
func LoopFile(dev string) string {
	p, err := os.ReadFile(loopDir(dev, "loop/backing_file"))
	if err != nil {
		return ""
	}
	// What the kernel adds when it has been told that the name is gone.
	return strings.TrimSuffix(strings.TrimSuffix(string(p), "\n"), " (deleted)")
}

// LoopDirect reports whether the loop device dev reads its file with direct
// I/O.
func LoopDirect(dev string) bool { return loopFlag(dev, "loop/dio") }

// LoopAutoclear reports whether the loop device dev frees itself when it is
// closed.
func LoopAutoclear(dev string) bool { return loopFlag(dev, "loop/autoclear") }

// LoopReadOnly reports whether the loop device dev cannot be written.
func LoopReadOnly(dev string) bool { return loopFlag(dev, "ro") }

func loopFlag(dev, name string) bool {
	p, err := os.ReadFile(loopDir(dev, name))
	return err == nil && strings.TrimSpace(string(p)) == "1"
}

// LoopReadahead returns the sysfs file with the readahead of the loop device
// dev in KiB.
func LoopReadahead(dev string) string { return LoopQueue(dev, "read_ahead_kb") }

// LoopQueue returns the sysfs file with a setting of the queue of the loop
// device dev.
func LoopQueue(dev, name string) string { return loopDir(dev, "queue/"+name) }

// LoopSize returns the sysfs file with the size of dev in sectors of 512 bytes.
func LoopSize(dev string) string { return loopDir(dev, "size") }

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
