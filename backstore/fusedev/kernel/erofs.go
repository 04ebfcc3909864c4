package kernel

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const erofsDir = "/sys/fs/erofs"

// FileErofs returns the names of all erofs file systems that are mounted on
// files without a loop device: "erofs-1" and so on, which is what the kernel
// calls them and their bdi. It does not tell which mount is which.
func FileErofs() (map[string]bool, error) {
	entries, err := os.ReadDir(erofsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // erofs is not loaded yet
	}
	names := make(map[string]bool)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "erofs-") {
			names[e.Name()] = true
		}
	}
	return names, err
}

// ErofsAlive reports whether the file system called name still exists, in
// whatever mount namespace.
func ErofsAlive(name string) bool {
	_, err := os.Stat(filepath.Join(erofsDir, name))
	return err == nil
}

// BDIReadahead returns the sysfs file with the readahead in KiB of a backing
// device, named by device number or, for an erofs on a file, by its name.
func BDIReadahead(name string) string {
	return filepath.Join("/sys/class/bdi", name, "read_ahead_kb")
}
