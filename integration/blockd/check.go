package blockd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Check checks the file system of a device that no daemon has, without the
// kernel: its disk is read into a file.
func (c Config) Check(ctx context.Context, id string) error {
	disk := filepath.Join(c.Dir, id+".disk")
	defer os.Remove(disk)
	if err := c.extract(ctx, id, disk); err != nil {
		return fmt.Errorf("reading device %s: %w", id, err)
	}
	argv := []string{"e2fsck", "-fn", disk}
	for _, d := range c.Devices {
		if d.ID == id && d.FSType == "xfs" {
			argv = []string{"xfs_repair", "-n", "-f", disk}
		}
	}
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("checking the file system of device %s: %w: %s", id, err, bytes.TrimSpace(out))
	}
	return nil
}

// extract writes the disk of a device to a sparse file.
func (c Config) extract(ctx context.Context, id, disk string) (err error) {
	o, err := c.Open(ctx, id)
	if err != nil {
		return err
	}
	f, err := os.Create(disk)
	if err != nil {
		return errors.Join(err, o.Close())
	}
	defer func() { err = errors.Join(err, f.Close(), o.Close()) }()
	if err := f.Truncate(o.Size()); err != nil {
		return err
	}
	buf, zeros := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < o.Size(); off += int64(len(buf)) {
		p := buf[:min(int64(len(buf)), o.Size()-off)]
		if _, err := o.ReadAt(ctx, p, off); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if bytes.Equal(p, zeros[:len(p)]) {
			continue
		}
		if _, err := f.WriteAt(p, off); err != nil {
			return err
		}
	}
	return nil
}

// Abort fails all requests of the kernel that wait for the daemon, also of one
// that can not be killed because it waits itself.
func (c Config) Abort() error {
	return unix.Unmount(filepath.Join(c.fusedev().RuntimeDir, "devices"), unix.MNT_FORCE)
}
