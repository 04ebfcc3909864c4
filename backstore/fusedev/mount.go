package fusedev

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/reprise-containers/reprise/backstore/fusedev/kernel"
	"github.com/reprise-containers/reprise/backstore/fusedev/mounter"
)

var (
	// ErrBusy is wrapped by Unmount's error if files are open below the
	// mount point. The mount is unchanged.
	ErrBusy = mounter.ErrBusy

	// ErrPinned is wrapped by Unmount's error if the target is unmounted,
	// but another mount namespace has a copy of the mount. The device is
	// in use until that namespace ends; removing it breaks the copy and
	// nothing else.
	ErrPinned = errors.New("another mount namespace keeps a copy of the mount")
)

// Mount says where and how to mount a device.
type Mount struct {
	Target string // an existing directory, absolute and without symbolic links
	FSType string // "ext4", "xfs", "erofs", or "" to look into the device

	// Writable asks for a mount that can be written, for which the device
	// must be a device.Writable.
	Writable bool

	// Options are the mount options, separated by commas; "" stands for the
	// defaults of the type and NoOptions for none.
	Options string
}

// Mount mounts device id read-only. If it is mounted on the target already,
// nothing happens. When ctx ends before the mount is done, Mount returns and
// the mount is undone as soon as the device lets that happen.
func (s *Server) Mount(ctx context.Context, id string, m Mount) error {
	e := s.table.byID(id)
	if e == nil || !e.added() {
		return fmt.Errorf("mounting device %s: %w", id, ErrNotFound)
	}
	if !filepath.IsAbs(m.Target) || filepath.Clean(m.Target) != m.Target {
		return fmt.Errorf("mounting device %s: target %q is not a clean absolute path", id, m.Target)
	}
	if m.FSType == "" {
		d, err := e.acquire(ctx)
		if err == nil {
			m.FSType, err = FSType(ctx, d)
			e.release()
		}
		if err != nil {
			return fmt.Errorf("finding the file system of device %s: %w", id, err)
		}
	}
	file := filepath.Join(s.cfg.fuseDir(), e.fileName())
	sameID := filepath.Join(s.cfg.fuseDir(), id+"@")
	if _, err := s.mounter.Mount(ctx, file, m.Target, m.FSType, sameID); err != nil {
		return fmt.Errorf("mounting device %s: %w", id, err)
	}
	return nil
}

// Unmount unmounts target and waits for the file system to end. It does
// nothing if target is no mount point. See ErrBusy and ErrPinned.
func (s *Server) Unmount(ctx context.Context, target string) error {
	res, err := s.mounter.Unmount(ctx, target, s.cfg.Patience)
	if err == nil && res.Pinned != "" {
		err = fmt.Errorf("unmounting %s: %w (%s)", target, ErrPinned, res.Pinned)
	}
	return err
}

// SetReadahead sets the kernel readahead of all mounts of device id in KiB.
// Mount sets it to 0. Files that are open keep what they were opened with.
func (s *Server) SetReadahead(ctx context.Context, id string, kib int) error {
	mounts, err := s.Mounts()
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range mounts {
		if m.ID == id {
			errs = append(errs, s.mounter.Readahead(ctx, m.Target, kib))
		}
	}
	return errors.Join(errs...)
}

// MountInfo is a mount of a device.
type MountInfo struct {
	ID     string
	Target string
	FSType string
	Source string // the loop device, or the FUSE file
}

// Mounts returns the mounts of all devices in this mount namespace, also those
// of earlier daemons, ordered by ID. It asks the kernel's tables only.
func (s *Server) Mounts() ([]MountInfo, error) {
	byFile, err := kernel.FileMounts(s.cfg.fuseDir())
	if err != nil {
		return nil, err
	}
	var infos []MountInfo
	for _, file := range slices.Sorted(maps.Keys(byFile)) {
		for _, m := range byFile[file] {
			infos = append(infos, MountInfo{ID: idOf(filepath.Base(file)), Target: m.Target, FSType: m.FSType, Source: m.Source})
		}
	}
	return infos, nil
}

// Known returns the IDs of all devices, added by this daemon or by an earlier
// one, in order.
func (s *Server) Known() []string {
	var ids []string
	for _, e := range s.table.all() {
		ids = append(ids, e.id)
	}
	return ids
}
