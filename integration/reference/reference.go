// Package reference measures what a container start reads at the least: the
// blocks of a disk image that the same command touches when the image lies
// behind a plain loop device without readahead.
package reference

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/blocktrace"
	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/loopdev"
	"github.com/reprise-containers/reprise/integration/sandbox"
)

// BlockSize is the unit in which touched data is counted, that of the ZFile.
const BlockSize = 4096

// Run is a command and the disk image it runs on.
type Run struct {
	Disk   string
	FSType image.FSType
	Args   []string
}

// Result is what a run did.
type Result struct {
	// Extents are the device reads in order, mounting included.
	Extents []blocktrace.Extent
	// Stdout is what the command printed.
	Stdout string
	// Wall is the time from mount to end.
	Wall time.Duration
}

// Measure runs the command in a container, as containerd would run it on an
// image, with the disk image on a loop device whose readahead is 0 and
// nothing of it in the page cache.
func (r Run) Measure(ctx context.Context, s *sandbox.Sandbox, c *sandbox.Containerd) (res Result, err error) {
	dir, err := r.folder(s)
	if err != nil {
		return res, err
	}
	dev, err := loopdev.Attach(r.Disk, 0)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, dev.Detach()) }()
	start := time.Now()
	res.Extents, err = blocktrace.Record(dir+"/trace", dev.Number, func() (err error) {
		if err := mount(dev.Path, dir, r.FSType); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unmount(dir)) }()
		res.Stdout, err = r.start(ctx, dir, c)
		return err
	})
	res.Wall = time.Since(start)
	return res, err
}

// folder makes the folders that a run needs.
func (r Run) folder(s *sandbox.Sandbox) (string, error) {
	dir, err := os.MkdirTemp(s.Root, "reference-")
	for _, sub := range []string{"trace", "lower", "upper", "work", "root"} {
		if err == nil {
			err = os.Mkdir(dir+"/"+sub, 0o755)
		}
	}
	return dir, err
}

// start runs the command on what is mounted in dir and returns its output.
func (r Run) start(ctx context.Context, dir string, c *sandbox.Containerd) (string, error) {
	argv := append([]string{"run", "--rm", "--fifo-dir", dir + "/fifo", "--rootfs", dir + "/root", "reference"}, r.Args...)
	return c.Ctr(ctx, argv...)
}

// withoutReadahead are mount options for what a file system reads ahead by
// itself, whatever the device's readahead is.
var withoutReadahead = map[image.FSType]string{
	image.Ext4: "inode_readahead_blks=0,no_prefetch_block_bitmaps",
}

// mount mounts the device read-only and a container's overlay over it.
func mount(dev, dir string, fsType image.FSType) error {
	if err := unix.Mount(dev, dir+"/lower", string(fsType), unix.MS_RDONLY, withoutReadahead[fsType]); err != nil {
		return fmt.Errorf("mounting %s: %w", dev, err)
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
	if err := unix.Mount("overlay", dir+"/root", "overlay", 0, options); err != nil {
		return errors.Join(fmt.Errorf("mounting an overlay: %w", err), unix.Unmount(dir+"/lower", 0))
	}
	return nil
}

func unmount(dir string) error {
	return errors.Join(unix.Unmount(dir+"/root", 0), unix.Unmount(dir+"/lower", 0))
}

// Blocks returns the numbers of the touched blocks, each once.
func (r Result) Blocks() map[int64]bool {
	const perBlock = BlockSize / 512
	touched := map[int64]bool{}
	for _, e := range r.Extents {
		for b := e.Sector / perBlock; b*perBlock < e.Sector+e.Sectors; b++ {
			touched[b] = true
		}
	}
	return touched
}
