package fusedev

import (
	"errors"
	"fmt"
	"strings"
)

// NoOptions asks for no options, where "" would ask for the default ones.
const NoOptions = " "

// ErrReadOnlyFS is wrapped by the error about a file system that cannot be
// written, whatever the device is.
var ErrReadOnlyFS = errors.New("file system can only be read")

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
	return f, nil
}
