package attach

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
)

// ErrReadOnlyFS is wrapped by AttachWritable's error if the file system in the
// layers below can't be written, whatever lies on top of it.
var ErrReadOnlyFS = fusedev.ErrReadOnlyFS

// WritableOptions say what becomes of a writable device.
type WritableOptions struct {
	// Target is the directory it is mounted on, "" for a loop device that is
	// not mounted.
	Target string
	// FS is its file system. Without a type, that is looked for in the device.
	FS fusedev.FileSystem
	// Format makes the file system if there is none in the device.
	Format bool
	// Create makes the files of the writable layer if they are not there, of the
	// size of the layers below if Create.VirtualSize is 0; nil if they must be.
	Create *lsmt.UpperOptions
}

// LoopDevice is a loop device and what is on it.
type LoopDevice struct {
	// Dev is its path, "" if there is none because the file system is mounted.
	Dev string
	// FSType is the type of the file system on it, "" if there is none that is
	// known.
	FSType string
}

// AttachWritable opens img, whose Upper must be set, as device id and mounts the
// file system in it for writing, or makes a loop device of it. What is done already
// stays, and a device that has a file system is never formatted; a failed
// AttachWritable leaves nothing mounted.
func (a *Attacher) AttachWritable(ctx context.Context, id string, img backstore.Image, opts WritableOptions) (LoopDevice, error) {
	added, err := a.addWritable(ctx, id, img, opts.Create)
	if err != nil {
		return LoopDevice{}, err
	}
	w, err := a.present(ctx, id, opts)
	if err != nil && added {
		err = errors.Join(err, a.remove(context.WithoutCancel(ctx), id))
	}
	return w, err
}

// present makes what the writable device id is to be seen as.
func (a *Attacher) present(ctx context.Context, id string, opts WritableOptions) (w LoopDevice, err error) {
	if opts.Format {
		if err := a.format(ctx, id, opts.FS); err != nil {
			return w, err
		}
	}
	if opts.Target != "" {
		return w, a.server.Mount(ctx, id, fusedev.Mount{
			Target: opts.Target, FSType: opts.FS.Type, Writable: true, Options: opts.FS.MountOptions,
		})
	}
	return a.loop(ctx, id, a.find(id).upper)
}

// loop makes a loop device of device id, which is d.
func (a *Attacher) loop(ctx context.Context, id string, d device.Device) (l LoopDevice, err error) {
	l.FSType, err = fusedev.FSType(ctx, d)
	if err == nil || errors.Is(err, fusedev.ErrUnknownFileSystem) {
		l.Dev, err = a.server.Loop(ctx, id)
	}
	return l, err
}

// format makes a file system in device id unless there is one. A device without
// one was never used: the last that a mkfs does is to write the superblock of ext4,
// and to take the mark of an unfinished file system out of that of xfs, which
// fusedev.FSType looks at.
func (a *Attacher) format(ctx context.Context, id string, fs fusedev.FileSystem) error {
	_, err := fusedev.FSType(ctx, a.find(id).upper)
	if errors.Is(err, fusedev.ErrUnknownFileSystem) {
		return a.server.Format(ctx, id, fs.Type, fs.MkfsOptions)
	}
	return err
}

// addWritable serves img as device id, unless it is served, and reports whether it
// did.
func (a *Attacher) addWritable(ctx context.Context, id string, spec backstore.Image, create *lsmt.UpperOptions) (bool, error) {
	if at := a.find(id); at != nil {
		if at.upper == nil {
			return false, fmt.Errorf("device %s is attached already, and can't be written", id)
		}
		return false, nil
	}
	if spec.Upper == nil {
		return false, fmt.Errorf("device %s has no writable layer", id)
	}
	lower := newImage(spec, 0, a.open)
	var err error
	if len(spec.Layers) > 0 {
		err = checkLower(ctx, lower)
	}
	if err == nil && create != nil {
		err = createUpper(*spec.Upper, *create, lower.size)
	}
	if err != nil {
		lower.close()
		return false, err
	}
	return true, a.serveWritable(ctx, id, lower)
}

// createUpper makes the files of a writable layer over below bytes, unless they
// are there. A crash may have left one of them, which is made anew: CreateUpper had
// not returned, so nothing was written. If something was, that is an error.
func createUpper(files lsmt.UpperFiles, opts lsmt.UpperOptions, below int64) error {
	data, err := stat(files.Data)
	if err != nil {
		return err
	}
	index, err := stat(files.Index)
	switch {
	case err != nil:
		return err
	case data != nil && index != nil:
		return nil
	case data != nil && allocated(data) > max(lsmt.HeaderSize, int64(data.Blksize)): //nolint:unconvert // 32 bits on arm64
		return fmt.Errorf("writable layer %s holds data, but lacks its index %s", files.Data, files.Index)
	}
	for _, f := range []string{files.Data, files.Index} {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if opts.VirtualSize == 0 {
		opts.VirtualSize = below
	}
	return lsmt.CreateUpper(files, opts)
}

// stat examines file, and returns nil if it is not there.
func stat(file string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Lstat(file, &st)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, &os.PathError{Op: "lstat", Path: file, Err: err}
	}
	return &st, nil
}

// allocated returns the bytes that the file of st takes on its file system.
func allocated(st *unix.Stat_t) int64 { return st.Blocks * 512 }

// checkLower opens the layers below a writable one and makes sure that the file
// system in them can be written.
func checkLower(ctx context.Context, lower *image) error {
	if _, err := lower.load(ctx); err != nil {
		return err
	}
	switch fsType, err := fusedev.FSType(ctx, lower); {
	case errors.Is(err, fusedev.ErrUnknownFileSystem): // for who mounts it to know
		return nil
	case err != nil:
		return err
	case fsType == "erofs":
		return fmt.Errorf("%s has an %s file system: %w", lower.spec.Ref, fsType, ErrReadOnlyFS)
	}
	return nil
}

// serveWritable adds the device of lower and the writable layer on it to the
// server. It closes lower if that fails.
func (a *Attacher) serveWritable(ctx context.Context, id string, lower *image) error {
	at := a.newAttached(lower)
	var below blob.ReaderAt // a nil interface if there is nothing
	if len(lower.layers) > 0 {
		below = at
	}
	upper, err := lsmt.OpenUpper(ctx, *lower.spec.Upper, below)
	if err != nil {
		lower.close()
		return err
	}
	at.upper = upper
	// Of what is taken over, the size below is not known here.
	if !lower.part && upper.Size() < lower.size {
		err := fmt.Errorf("writable layer %s has %d bytes, less than the %d of the layers below", lower.spec.Upper.Data, upper.Size(), lower.size)
		return errors.Join(err, at.close())
	}
	return a.register(ctx, id, at)
}

// Device makes a loop device of img, which is served as device id, unless it is.
// It can't be written.
func (a *Attacher) Device(ctx context.Context, id string, img backstore.Image) (LoopDevice, error) {
	added, err := a.add(ctx, id, img, nil)
	if err != nil {
		return LoopDevice{}, err
	}
	l, err := a.loop(ctx, id, a.find(id))
	if err != nil && added {
		err = errors.Join(err, a.remove(context.WithoutCancel(ctx), id))
	}
	return l, err
}

// writable returns the writable device id.
func (a *Attacher) writable(id string) (*attached, error) {
	at := a.find(id)
	if at == nil || at.upper == nil {
		return nil, fmt.Errorf("device %s is not attached for writing: %w", id, fusedev.ErrNotFound)
	}
	return at, nil
}

// Freeze calls during with what was written to device id up to now, as one
// consistent state of the file system in it: that is written out and stands still
// until the state is taken, which for a sparse layer is when during returns.
func (a *Attacher) Freeze(ctx context.Context, id string, during func(ctx context.Context, l *lsmt.Layer) error) error {
	at, err := a.writable(id)
	if err != nil {
		return err
	}
	target, err := a.target(id)
	if err == nil {
		err = a.freeze(ctx, at.upper, target, during)
	}
	if err != nil {
		return fmt.Errorf("freezing device %s: %w", id, err)
	}
	return nil
}

// freeze is Freeze of the device u, which is mounted on target or, if that is "",
// nowhere.
func (a *Attacher) freeze(ctx context.Context, u *lsmt.Upper, target string, during func(ctx context.Context, l *lsmt.Layer) error) error {
	var layer *lsmt.Layer
	release := func() {}
	defer func() { release() }()
	take := func() error {
		l, done, err := u.Snapshot(ctx)
		if err == nil {
			layer, release = l, done
		}
		return err
	}
	var err error
	switch {
	case target == "":
		err = take()
	case u.Stats().Sparse:
		// Thawing writes to the device, as ext4 does to its superblock, and the
		// device takes no write before the release: that has to come first.
		return a.server.Freeze(ctx, target, func() error {
			defer func() { release() }()
			if err := take(); err != nil {
				return err
			}
			return during(ctx, layer)
		})
	default:
		err = a.server.Freeze(ctx, target, take)
	}
	if err != nil {
		return err
	}
	return during(ctx, layer)
}

// LoopID returns the id of the device whose loop device is dev, "" if that is none
// that this Attacher handed out, or one before it.
func (a *Attacher) LoopID(dev string) (string, error) {
	loops, err := a.server.Loops()
	if err != nil {
		return "", err
	}
	for _, l := range loops {
		if l.Dev == dev {
			return l.ID, nil
		}
	}
	return "", nil
}

// FSType returns the type of the file system of device id that is mounted, "" if
// none is.
func (a *Attacher) FSType(id string) (string, error) {
	mounts, err := a.server.Mounts()
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if m.ID == id {
			return m.FSType, nil
		}
	}
	return "", nil
}

// target returns where device id is mounted, "" if nowhere.
func (a *Attacher) target(id string) (string, error) {
	mounts, err := a.server.Mounts()
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if m.ID == id {
			return m.Target, nil
		}
	}
	return "", nil
}

// Restack seals the writable layer of device id in place and goes on with next, a
// new and empty one, on top of it. The layer that was sealed is not closed before
// the device is detached.
func (a *Attacher) Restack(ctx context.Context, id string, next lsmt.UpperFiles) error {
	at, err := a.writable(id)
	if err != nil {
		return err
	}
	seal := func() error {
		_, err := at.upper.Restack(ctx, next)
		return err
	}
	target, err := a.target(id)
	switch {
	case err != nil:
		return err
	case target == "":
		return seal()
	}
	return a.server.Freeze(ctx, target, seal)
}

// Grow makes device id size bytes large, and what is mounted of it, too.
func (a *Attacher) Grow(ctx context.Context, id string, size int64) error {
	at, err := a.writable(id)
	if err != nil {
		return err
	}
	if err := at.upper.Grow(ctx, size); err != nil {
		return err
	}
	if err := a.server.Resized(ctx, id); err != nil {
		return err
	}
	target, err := a.target(id)
	if err != nil || target == "" {
		return err
	}
	return a.server.GrowFS(ctx, id, target)
}

var _ device.Writable = (*lsmt.Upper)(nil)
