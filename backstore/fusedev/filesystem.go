package fusedev

import (
	"errors"
	"fmt"
	"strings"

	"github.com/reprise-containers/reprise/backstore/fusedev/mounter"
)

// NoOptions asks for no options, where "" would ask for the default ones.
const NoOptions = " "

var (
	// ErrReadOnlyFS is wrapped by the error about a file system that cannot
	// be written, whatever the device is.
	ErrReadOnlyFS = errors.New("file system can only be read")

	// ErrReadOnly is wrapped by the error about a device that is no
	// device.Writable.
	ErrReadOnly = errors.New("device can only be read")
)

// FileSystem is a file system type with its options, "" for the defaults of the
// type and NoOptions for none.
type FileSystem struct {
	Type         string // "ext4" or "xfs"
	MountOptions string // separated by commas
	MkfsOptions  string // separated by blanks
}

// ParseFileSystem parses upstream's description of a file system to be made and
// mounted, type[;mount options[;mkfs options]]. An absent part stands for the
// defaults, an empty one for no options. Options that name other files are
// refused.
func ParseFileSystem(s string) (FileSystem, error) {
	parts := strings.Split(s, ";")
	if len(parts) > 3 {
		return FileSystem{}, fmt.Errorf("file system %q has more than a type, mount options and mkfs options", s)
	}
	f := FileSystem{Type: strings.TrimSpace(parts[0])}
	for i, dst := range []*string{&f.MountOptions, &f.MkfsOptions} {
		if len(parts) > i+1 {
			*dst = strings.TrimSpace(parts[i+1])
			if *dst == "" {
				*dst = NoOptions
			}
		}
	}
	if err := mounter.CheckMountOptions(f.Type, f.MountOptions); err != nil {
		return FileSystem{}, fmt.Errorf("parsing file system %q: %w", s, err)
	}
	if err := mounter.CheckMkfsOptions(f.Type, f.MkfsOptions); err != nil {
		return FileSystem{}, fmt.Errorf("parsing file system %q: %w", s, err)
	}
	return f, nil
}
