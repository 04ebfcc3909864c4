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

	// Replace is what the paths of dead files begin with: a mount of one
	// of them on Target is to be replaced.
	Replace string `json:"replace,omitempty"`

	// Targets are the mount points to detach lazily, in this order.
	Targets []string `json:"targets,omitempty"`

	ReadaheadKiB int `json:"readaheadKiB,omitempty"`

	// Patience bounds the wait for mounts that are busy or pinned.
	Patience time.Duration `json:"patience,omitempty"`
}

// Result is what a child did.
type Result struct {
	Source string `json:"source,omitempty"` // loop device, or the FUSE file

	// Pinned names the loop device or erofs instance that lives on after
	// an unmount, because another mount namespace has a copy.
	Pinned string `json:"pinned,omitempty"`

	Error string `json:"error,omitempty"`
	Busy  bool   `json:"busy,omitempty"` // Error is EBUSY
}

// ErrBusy is wrapped by the error of an Unmount that gave up because files
// were open.
var ErrBusy = errors.New("mount is busy")

// ErrUnfinished is wrapped by the error of a job whose caller stopped waiting.
// The child undoes its work as soon as the kernel lets it.
var ErrUnfinished = errors.New("not finished in time")
