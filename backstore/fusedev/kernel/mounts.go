package kernel

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Mount is one mount of this mount namespace.
type Mount struct {
	Target string
	FSType string
	Source string // "/dev/loop3", or the path of a file
	Dev    string // device number of the file system, "major:minor"
}

// MountsAt returns the mounts on target, the topmost last.
func MountsAt(target string) ([]Mount, error) {
	return mounts(func(m *mountinfo.Info) bool { return m.Mountpoint == target })
}

// FileMounts returns the mounts of files in the directory dir, directly or
// through a loop device, by file.
func FileMounts(dir string) (map[string][]Mount, error) {
	found, err := mounts(func(m *mountinfo.Info) bool {
		return filepath.Dir(m.Source) == dir || IsLoop(m.Source)
	})
	if err != nil {
		return nil, err
	}
	byFile := make(map[string][]Mount)
	for _, m := range found {
		if file := m.File(); filepath.Dir(file) == dir {
			byFile[file] = append(byFile[file], m)
		}
	}
	return byFile, nil
}

// File returns the path of the file that is mounted, looking through a loop
// device.
func (m Mount) File() string {
	if IsLoop(m.Source) {
		return LoopFile(m.Source)
	}
	return m.Source
}

// Writable reports whether m is of a loop device that can be written.
func (m Mount) Writable() bool { return IsLoop(m.Source) && !LoopReadOnly(m.Source) }

func mounts(keep func(*mountinfo.Info) bool) ([]Mount, error) {
	infos, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !keep(m), false
	})
	if err != nil {
		return nil, fmt.Errorf("reading mountinfo: %w", err)
	}
	var ms []Mount
	for _, m := range infos {
		ms = append(ms, Mount{
			Target: m.Mountpoint,
			FSType: m.FSType,
			Source: m.Source,
			Dev:    fmt.Sprintf("%d:%d", m.Major, m.Minor),
		})
	}
	return ms, nil
}

// MakeShared makes dir a mount point, unless it is one, and its mount a shared
// one, unless it is.
func MakeShared(dir string) error {
	infos, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(dir))
	if err != nil {
		return fmt.Errorf("reading mountinfo: %w", err)
	}
	if len(infos) == 0 {
		if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("binding %s to itself: %w", dir, err)
		}
	} else if sharedGroup(infos[len(infos)-1].Optional) {
		return nil
	}
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("making %s a shared mount: %w", dir, err)
	}
	return nil
}

// sharedGroup reports whether mountinfo's optional fields name a peer group.
func sharedGroup(optional string) bool {
	for f := range strings.FieldsSeq(optional) {
		if strings.HasPrefix(f, "shared:") {
			return true
		}
	}
	return false
}
