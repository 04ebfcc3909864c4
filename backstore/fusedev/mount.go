package fusedev

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/reprise-containers/reprise/backstore/device"
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
	// nothing else. If it can be written, it may still be.
	ErrPinned = errors.New("another mount namespace keeps a copy of the mount")

	// ErrUnsynced is wrapped by Unmount's error if the target is unmounted,
	// but the device did not take all that was to be written to it.
	ErrUnsynced = errors.New("not everything was written")
)

// CheckObserver is an Observer that wants to hear about checks of file systems.
type CheckObserver interface {
	// FileSystemChecked is called when the file system of a device that is to
	// be mounted for writing had not been unmounted, as after a crash of the
	// machine, and says what was done about it.
	FileSystemChecked(id, report string)
}

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

// Mount mounts device id. If it is mounted on the target already, nothing
// happens. When ctx ends before the mount is done, Mount returns and the mount is
// undone as soon as the device lets that happen. An ext4 without a journal that
// was not unmounted is checked, and repaired, before it is mounted for writing.
func (s *Server) Mount(ctx context.Context, id string, m Mount) error {
	if !filepath.IsAbs(m.Target) || filepath.Clean(m.Target) != m.Target {
		return fmt.Errorf("mounting device %s: target %q is not a clean absolute path", id, m.Target)
	}
	e, writable, err := s.lookUp(ctx, id)
	if err != nil {
		return fmt.Errorf("mounting device %s: %w", id, err)
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
	if m.Writable {
		if err := checkWritable(m.FSType, writable); err != nil {
			return fmt.Errorf("mounting device %s: %w", id, err)
		}
	}
	res, err := s.mounter.Mount(ctx, mounter.Mount{
		File: s.file(e), Target: m.Target, FSType: m.FSType,
		Writable: m.Writable, Options: m.Options, Replace: s.filesOf(id),
	})
	if err != nil {
		return fmt.Errorf("mounting device %s: %w", id, err)
	}
	if o, ok := s.cfg.Observer.(CheckObserver); ok && res.Check != "" {
		o.FileSystemChecked(id, res.Check)
	}
	return nil
}

// checkWritable reports whether a device with a file system of type fsType can be
// mounted for writing.
func checkWritable(fsType string, writable bool) error {
	switch {
	case !writable:
		return ErrReadOnly
	case fsType == "erofs":
		return fmt.Errorf("%s: %w; mount it read-only, below an overlay (rw_mode overlayfs), or use an image with ext4", fsType, ErrReadOnlyFS)
	}
	return nil
}

// lookUp returns the entry of device id and whether it can be written.
func (s *Server) lookUp(ctx context.Context, id string) (e *entry, writable bool, err error) {
	e = s.table.byID(id)
	if e == nil || !e.added() {
		return nil, false, ErrNotFound
	}
	d, err := e.acquire(ctx)
	if err != nil {
		return nil, false, err
	}
	defer e.release()
	_, writable = d.(device.Writable)
	return e, writable, nil
}

// file returns the path of e's FUSE file.
func (s *Server) file(e *entry) string { return filepath.Join(s.cfg.fuseDir(), e.fileName()) }

// filesOf returns what the paths of the FUSE files begin with that device id, or
// one of that ID before it, had.
func (s *Server) filesOf(id string) string { return filepath.Join(s.cfg.fuseDir(), id+"@") }

// Unmount unmounts target and waits for the file system to end. It does
// nothing if target is no mount point. See ErrBusy, ErrPinned and ErrUnsynced.
// After nil, everything that was written is with the device, and nothing else
// will be; for a file system that can be written ErrPinned is repeated until
// that is so.
func (s *Server) Unmount(ctx context.Context, target string) error {
	res, err := s.mounter.Unmount(ctx, target, s.cfg.Patience)
	if err != nil {
		return err
	}
	var errs []error
	if res.Pinned != "" {
		errs = append(errs, fmt.Errorf("unmounting %s: %w (%s)", target, ErrPinned, res.Pinned))
	}
	if res.Unsynced != "" {
		errs = append(errs, fmt.Errorf("unmounting %s: %w: %s", target, ErrUnsynced, res.Unsynced))
	}
	return errors.Join(errs...)
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
