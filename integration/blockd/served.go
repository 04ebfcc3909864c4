package blockd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/attach"
	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/zfile"
)

// served is a device of a daemon.
type served struct {
	cfg      Config
	device   Device
	attacher *attach.Attacher

	mu    sync.Mutex // held by whatever changes the stack, or needs it
	stack stack
}

// target is where it is mounted, "" for a loop device.
func (d *served) target() string {
	if d.device.FSType == "" {
		return ""
	}
	return d.cfg.Target(d.device.ID)
}

// attachment is what is attached.
func (d *served) attachment() backstore.Attachment {
	return backstore.Attachment{ID: d.device.ID, Image: d.cfg.image(d.device.ID, d.stack), Target: d.target()}
}

// attach makes the loop device or mounts the file system.
func (d *served) attach(ctx context.Context) (path string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.attachment()
	device, err := d.attacher.AttachWritable(ctx, a.ID, a.Image, attach.WritableOptions{
		Target: a.Target,
		FS:     fusedev.FileSystem{Type: d.device.FSType},
		Format: a.Target != "",
	})
	if a.Target != "" {
		return a.Target, err
	}
	return device.Dev, err
}

// commit writes a picture of the writable layer to a file, which gets its name
// when it is complete. It returns the layers below.
func (d *served) commit(ctx context.Context, file string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stack.Layers, d.attacher.Freeze(ctx, d.device.ID, func(ctx context.Context, l *lsmt.Layer) error {
		return writeLayer(ctx, file, l)
	})
}

func writeLayer(ctx context.Context, file string, layer *lsmt.Layer) error {
	f, err := os.Create(file + ".new")
	if err != nil {
		return err
	}
	z, err := zfile.NewWriter(f, zfile.Options{Algorithm: zfile.LZ4, BlockSize: 4096})
	if err == nil {
		err = errors.Join(layer.Commit(ctx, z, lsmt.Identity{}), z.Close())
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("committing to %s: %w", file, err)
	}
	return os.Rename(file+".new", file)
}

// restack puts a new writable layer on top of what is written.
func (d *served) restack(ctx context.Context) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stack, err = d.cfg.Restack(ctx, d.device, func(ctx context.Context, next lsmt.UpperFiles) error {
		return d.attacher.Restack(ctx, d.device.ID, next)
	})
	return err
}

// detach unmounts the device and closes its layers.
func (d *served) detach(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.attacher.Detach(ctx, d.device.ID, d.target())
}
