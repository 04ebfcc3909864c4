package snapshot

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
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
	return errors.Join(errs...)
}
