package mounter

import (
	"errors"
	"time"
)

// Operations.
const (
	opMount     = "mount"
	opUnmount   = "unmount"
	opDetach    = "detach"
	opReadahead = "readahead"
	opFormat    = "format"
	opLoop      = "loop"
	opUnloop    = "unloop"
	opFreeze    = "freeze"
	opThaw      = "thaw"
	opGrow      = "grow"
)

// Job is one task for a child process.
type Job struct {
	Op string `json:"op"`

	// Dir is a directory for lock files and for what must be remembered
	// of a mount until it is unmounted.
	Dir string `json:"dir"`

	File   string `json:"file,omitempty"`   // path of the device's FUSE file
	Target string `json:"target,omitempty"` // mount point
	FSType string `json:"fsType,omitempty"` // ext4, xfs or erofs

	// Writable asks for a loop device, and a mount, that can be written.
	Writable bool `json:"writable,omitempty"`

	// Options are those of mount or of mkfs; see MountOptions and
	// MkfsOptions.
	Options string `json:"options,omitempty"`

	// Replace is what the paths of dead files begin with: a mount of one
	// of them on Target is to be replaced.
	Replace string `json:"replace,omitempty"`

	// Devices is the directory with the devices' FUSE files.
	Devices string `json:"devices,omitempty"`

	// Loops are the loop devices to take away, by name, with their files.
	Loops map[string]string `json:"loops,omitempty"`

	// Lazy takes loop devices away that are open, as soon as they are
	// closed.
	Lazy bool `json:"lazy,omitempty"`

	// Targets are the mount points to detach lazily, in this order.
	Targets []string `json:"targets,omitempty"`

	ReadaheadKiB int `json:"readaheadKiB,omitempty"`

	// Patience bounds the wait for mounts that are busy or pinned.
	Patience time.Duration `json:"patience,omitempty"`
}

// Result is what a child did.
type Result struct {
	Source string `json:"source,omitempty"` // loop device, or the FUSE file

	// Frozen is set in a line of its own, before the job's real result.
	Frozen bool `json:"frozen,omitempty"`

	// Check says what the check of a file system said that had not been
	// unmounted.
	Check string `json:"check,omitempty"`

	// Pinned names the loop device or erofs instance that lives on after
	// an unmount, because another mount namespace has a copy.
	Pinned string `json:"pinned,omitempty"`

	// Unsynced says why not all data of a file system that was unmounted
	// got to the device.
	Unsynced string `json:"unsynced,omitempty"`

	Error string `json:"error,omitempty"`
	Busy  bool   `json:"busy,omitempty"` // Error is EBUSY
}

var (
	// ErrBusy is wrapped by the error of a job that gave up because files,
	// or a device, were open.
	ErrBusy = errors.New("mount is busy")

	// ErrUnfinished is wrapped by the error of a job whose caller stopped
	// waiting. The child undoes its work as soon as the kernel lets it.
	ErrUnfinished = errors.New("not finished in time")
)
