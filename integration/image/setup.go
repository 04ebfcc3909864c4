package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// setupDevices are the device files that a Setup script finds: path below /dev
// and device number.
var setupDevices = map[string]uint64{
	"null":    unix.Mkdev(1, 3),
	"urandom": unix.Mkdev(1, 9),
}

// setup runs the Setup script in root. It has network and process name spaces
// of its own, so it reaches nothing outside and nothing that it starts outlives
// it, but the machine's mount name space: a copy of that would pin the mounts of
// others (see StartRegistry of package sandbox).
func (r Rootfs) setup(ctx context.Context, root string, say Progress) (err error) {
	if r.Setup == "" {
		return nil
	}
	say("setting up what was unpacked")
	script := filepath.Join(root, "setup.sh")
	if err := os.WriteFile(script, []byte(r.Setup), 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(script)) }()
	for name, number := range setupDevices {
		dev := filepath.Join(root, "dev", name)
		if err := unix.Mknod(dev, unix.S_IFCHR|0o666, int(number)); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.Remove(dev)) }()
	}
	return command(ctx, "unshare", "--net", "--pid", "--fork", "--kill-child",
		"chroot", root, "/bin/busybox", "sh", "-e", "/setup.sh")
}
