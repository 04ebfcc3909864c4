package blockd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/zfile"
)

// served is a device of a daemon.
type served struct {
	cfg    Config
	device Device
	server *fusedev.Server

	mu    sync.Mutex // held by whatever changes the stack, or needs it
	stack stack
	*Opened
}

// add opens a device and adds it to the server.
func (d *served) add(ctx context.Context) (err error) {
	if d.stack, err = d.cfg.settle(ctx, d.device.ID); err != nil {
		return err
	}
	if d.Opened, err = d.cfg.openUpper(ctx, d.device.ID, d.stack); err != nil {
		return err
	}
	return d.server.Add(ctx, d.device.ID, d.Upper)
}

// attach makes the loop device or mounts the file system.
func (d *served) attach(ctx context.Context) (path string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.device.FSType == "" {
		return d.server.Loop(ctx, d.device.ID)
	}
	if !d.stack.Formatted {
		if err := d.server.Format(ctx, d.device.ID, d.device.FSType, ""); err != nil {
			return "", err
		}
		d.stack.Formatted = true
		if err := d.cfg.save(d.device.ID, d.stack); err != nil {
			return "", err
		}
	}
	target := d.cfg.Target(d.device.ID)
	m := fusedev.Mount{Target: target, FSType: d.device.FSType, Writable: true}
	return target, d.server.Mount(ctx, d.device.ID, m)
}

// commit writes a picture of the writable layer to a file, which gets its name
// when it is complete. It returns the layers below.
func (d *served) commit(ctx context.Context, file string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var layer *lsmt.Layer
	release := func() {}
	take := func() (err error) {
		layer, release, err = d.Snapshot(ctx)
		return err
	}
	var err error
	if d.device.FSType == "" {
		err = take()
	} else {
		err = d.server.Freeze(ctx, d.cfg.Target(d.device.ID), take)
	}
	if err != nil {
		return nil, err
	}
	defer release()
	return d.stack.Layers, writeLayer(ctx, file, layer)
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
	d.stack, err = d.cfg.Restack(ctx, d.device, d.Upper)
	return err
}

// detach unmounts the device and closes its layers.
func (d *served) detach(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	if d.device.FSType == "" {
		err = d.server.Unloop(ctx, d.device.ID)
	} else {
		err = d.server.Unmount(ctx, d.cfg.Target(d.device.ID))
	}
	if err != nil {
		return err
	}
	return errors.Join(d.server.Remove(ctx, d.device.ID), d.Opened.Close())
}
