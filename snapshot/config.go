package snapshot

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// Config configures a Snapshotter.
type Config struct {
	// Root is the directory that holds metadata.db and snapshots/. It must
	// survive reboots and be on a file system that overlayfs can write to.
	Root string
	// MountOptions are added to every overlay mount. "index=off" and, in a
	// user namespace, "userxattr" are added unless they are set here.
	MountOptions []string
	// KeepIdle leaves an image mounted when its last user is removed, until
	// the image itself is removed or the snapshotter restarts.
	KeepIdle bool
	// AsyncRemove leaves the deletion of directories to Cleanup.
	AsyncRemove bool
	// AttachTimeout bounds how long Prepare, View and Mounts wait for an
	// image to be mounted, and Remove for it to be unmounted; 0 means no
	// bound. containerd's garbage collection waits for such calls, and every
	// other call waits for it in turn, so one registry that hangs must not
	// hold them for ever.
	AttachTimeout time.Duration
	// Writable says what takes the writes of containers.
	Writable Writable
}

// Writable says what takes the writes of containers, where their labels do not.
type Writable struct {
	// Mode is what containers on overlaybd images get. Unset is overlayfs.
	Mode labels.WritableMode
	// Sparse has writes done in place, in a sparse file; else they are appended
	// to a log.
	Sparse bool
	// Size is that of a device with nothing below it, in bytes. Default 64 GiB.
	Size int64
	// FS is the file system that is made in such a device, with options, as
	// fusedev.ParseFileSystem takes it. Default ext4.
	FS string
}

// Defaults of Writable.
const (
	DefaultVirtualSize = 64 << 30
	DefaultFS          = "ext4"
)

func (w Writable) withDefaults() Writable {
	if w.Size == 0 {
		w.Size = DefaultVirtualSize
	}
	if w.FS == "" {
		w.FS = DefaultFS
	}
	return w
}

// Validate reports every value that cannot work.
func (c Config) Validate() error {
	var errs []error
	if !filepath.IsAbs(c.Root) {
		errs = append(errs, fmt.Errorf("root %q is not an absolute path", c.Root))
	}
	if strings.ContainsAny(c.Root, `:,\`) {
		errs = append(errs, fmt.Errorf("root %q: overlayfs options cannot hold a path with ':', ',' or '\\'", c.Root))
	}
	if c.AttachTimeout < 0 {
		errs = append(errs, fmt.Errorf("attach timeout %v is negative", c.AttachTimeout))
	}
	if w := c.Writable.withDefaults(); w.Size < 0 || w.Size%lsmt.SectorSize != 0 {
		errs = append(errs, fmt.Errorf("size %d of writable devices is not a multiple of %d", w.Size, lsmt.SectorSize))
	} else if _, err := fusedev.ParseFileSystem(w.FS); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
