package snapshot

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/moby/sys/mountinfo"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/attach"
	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// An active snapshot can have a writable device: the layers of the image below it,
// if there is one, and a writable layer on top, in block/. The device is the
// snapshot's alone and has its id; the mount that others share of the image below
// is not used by it.

// Files of a writable snapshot in block/. The data and index files have upstream's
// names.
const (
	writableName  = "writable.json"
	writableData  = "writable_data"
	writableIndex = "writable_index"
)

// writable is what is kept of a writable snapshot.
type writable struct {
	// Device says that the device itself is handed out and not mounted.
	Device bool `json:"device,omitempty"`
	// FS is the file system, as fusedev.ParseFileSystem takes it, "" for what is
	// in the layers below.
	FS string `json:"fs,omitempty"`
	// Size is that of a device with nothing below it, in bytes.
	Size int64 `json:"size,omitempty"`
	// Sparse says how the layer is written.
	Sparse bool `json:"sparse,omitempty"`
}

// upper returns the files of the writable layer of snapshot id.
func (l layout) upper(id string) *lsmt.UpperFiles {
	return &lsmt.UpperFiles{
		Data:  filepath.Join(l.block(id), writableData),
		Index: filepath.Join(l.block(id), writableIndex),
	}
}

// isWritable reports whether snapshot id has a writable device.
func (l layout) isWritable(id string) (bool, error) {
	_, err := os.Lstat(filepath.Join(l.block(id), writableName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// writable returns what is kept of the active snapshot id, nil if it is not a
// writable one.
func (l layout) writable(id string) (*writable, error) {
	path := filepath.Join(l.block(id), writableName)
	text, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var w writable
	if err == nil {
		err = json.Unmarshal(text, &w)
	}
	if err == nil {
		_, err = w.fileSystem()
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return &w, nil
}

// fileSystem returns the file system of w, without a type if that is to be looked
// for.
func (w writable) fileSystem() (fusedev.FileSystem, error) {
	if w.FS == "" {
		return fusedev.FileSystem{}, nil
	}
	return fusedev.ParseFileSystem(w.FS)
}

// wantsWritable returns how r wants to be written, nil if on overlayfs.
func (s *Snapshotter) wantsWritable(ctx context.Context, r request) (*writable, error) {
	mode, asked := s.writableMode(r)
	if r.kind != snapshots.KindActive || mode != labels.WritableDir && mode != labels.WritableDevice {
		return nil, nil
	}
	below, err := s.stackOn(ctx, r.parent)
	if err != nil {
		return nil, err
	}
	root := class(r.labels, r.key) == labels.Root
	switch {
	case len(below.plain) > 0:
		// No device can lie on files. Those who make images ask for one without
		// knowing what they build on, BuildKit for one.
		return nil, nil
	case !asked && (below.image == "" || !root || r.labels.Build || r.labels.RecordTrace):
		return nil, nil // that is for containers on overlaybd images
	case root && r.labels.RecordTrace:
		return nil, fmt.Errorf("label %s: a container that is recorded, as label %s asks, writes to overlayfs: %w",
			labels.Writable, labels.RecordTrace, errdefs.ErrInvalidArgument)
	case s.images.writer == nil:
		return nil, fmt.Errorf("writable devices are not supported: %w", errdefs.ErrNotImplemented)
	}
	w := s.deviceFor(r, mode, root || r.labels.Build, below.image != "")
	if _, err := w.fileSystem(); err != nil {
		return nil, fmt.Errorf("label %s: %w: %w", labels.FSType, err, errdefs.ErrInvalidArgument)
	}
	return w, nil
}

// deviceFor returns the device of r, which lies on an image or on nothing. Labels of
// a layer are for whoever made the image to choose, so they count only if r is of a
// client itself.
func (s *Snapshotter) deviceFor(r request, mode labels.WritableMode, ofClient, onImage bool) *writable {
	w := &writable{Device: mode == labels.WritableDevice, Sparse: s.cfg.Writable.Sparse}
	var asks labels.Labels
	if ofClient {
		asks = r.labels
	}
	if onImage {
		w.FS = optionsOf(asks.FS)
		return w
	}
	cfg := s.cfg.Writable.withDefaults()
	w.FS, w.Size = cmp.Or(asks.FS, cfg.FS), cmp.Or(asks.VirtualSize, cfg.Size)
	return w
}

// writableMode returns what r is to be written to, and whether a label says so.
func (s *Snapshotter) writableMode(r request) (mode labels.WritableMode, asked bool) {
	if r.labels.Writable != labels.WritableUnset {
		return r.labels.Writable, true
	}
	return s.cfg.Writable.Mode, false
}

// optionsOf returns what a client says of the file system of an image that has
// one already, if it says more than the type, which is looked for.
func optionsOf(fs string) string {
	if !strings.Contains(fs, ";") {
		return ""
	}
	return fs
}

// prepareWritable creates a snapshot with the writable device w. If the node alone
// wants it and the image can't be written, done is false and there is no snapshot.
func (s *Snapshotter) prepareWritable(ctx context.Context, r request, w *writable) (mounts []mount.Mount, done bool, err error) {
	r.writable = w
	snap, err := s.create(ctx, r)
	if err != nil {
		return nil, false, err
	}
	mounts, err = s.writableMounts(ctx, snap, r.key, w)
	if err == nil {
		return mounts, true, nil
	}
	s.abandon(ctx, r.key)
	if !errors.Is(err, attach.ErrReadOnlyFS) {
		return nil, false, err
	}
	if _, asked := s.writableMode(r); asked {
		return nil, false, fmt.Errorf("label %s: %w; convert the image with ctr obdconv to have ext4, or leave the label out: %w", labels.Writable, err, errdefs.ErrFailedPrecondition)
	}
	log.G(ctx).WithField("key", r.key).Info("the file system of the image can only be read, its container writes to overlayfs")
	return nil, false, nil
}

// makeWritable makes what describes the writable device w in the directory of a
// snapshot, durably: what follows can be done again at any time.
func makeWritable(dir string, w *writable) error {
	block := filepath.Join(dir, "block")
	text, err := json.Marshal(w)
	if err == nil {
		err = os.MkdirAll(filepath.Join(block, "mountpoint"), 0o700)
	}
	if err == nil {
		err = writeFile(block, writableName, text)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("making room for a writable device: %w", err)
	}
	return nil
}

// writableMounts attaches the writable device of snap, which is key, and returns its
// mounts.
func (s *Snapshotter) writableMounts(ctx context.Context, snap storage.Snapshot, key string, w *writable) ([]mount.Mount, error) {
	if s.images.writer == nil {
		return nil, fmt.Errorf("writable devices are not supported: %w", errdefs.ErrNotImplemented)
	}
	below, err := s.stackOf(snap.ParentIDs)
	if err != nil {
		return nil, err
	}
	fileSystem, err := w.fileSystem()
	if err != nil {
		return nil, err
	}
	target := s.dirs.mountpoint(snap.ID)
	opts := attach.WritableOptions{
		Target: target,
		FS:     fileSystem,
		Format: below.image == "",
		Create: &lsmt.UpperOptions{Identity: lsmt.Identity{VirtualSize: w.Size}, Sparse: w.Sparse},
	}
	if w.Device {
		opts.Target = ""
	}
	var attached attach.LoopDevice
	err = s.images.locked(ctx, snap.ID, func(ctx context.Context, _ bool) error {
		if err := s.stillWritable(ctx, snap.ID, key); err != nil {
			return err
		}
		img, err := s.dirs.writableImage(snap.ID, below.image)
		if err != nil {
			return err
		}
		if err := s.dirs.unseal(snap.ID); err != nil {
			return err
		}
		attached, err = s.images.writer.AttachWritable(ctx, snap.ID, img, opts)
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("attaching writable device %s: %w", snap.ID, err)
	case !w.Device:
		return bind(target, "rw"), nil
	}
	return deviceMount(attached, "rw", "discard"), nil
}

// stillWritable makes sure that key is the active snapshot id with a writable device.
// The caller has the lock of id, without which that may have changed: what was
// committed must not be taken for what can be written again.
func (s *Snapshotter) stillWritable(ctx context.Context, id, key string) error {
	err := s.read(ctx, func(ctx context.Context) error {
		now, info, _, err := storage.GetInfo(ctx, key)
		if err == nil && (now != id || info.Kind != snapshots.KindActive) {
			err = fmt.Errorf("snapshot %s is another by now: %w", key, errdefs.ErrFailedPrecondition)
		}
		return err
	})
	if err != nil {
		return err
	}
	if is, err := s.dirs.isWritable(id); err != nil || !is {
		return firstOf(err, fmt.Errorf("snapshot %s has no writable device any more: %w", key, errdefs.ErrFailedPrecondition))
	}
	return nil
}

// deviceMount returns the mount of a device.
func deviceMount(dev attach.LoopDevice, options ...string) []mount.Mount {
	if dev.FSType == "xfs" {
		options = append(options, "nouuid") // there may be two made from one
	}
	return []mount.Mount{{Type: dev.FSType, Source: dev.Dev, Options: options}}
}

// writableImage returns what the writable device of snapshot id is made of; image
// is the image snapshot below it, or "".
func (l layout) writableImage(id, image string) (img backstore.Image, err error) {
	if image != "" {
		img, err = l.image(image)
	}
	img.Upper = l.upper(id)
	return img, err
}

// viewDevice returns the device of the image below a view that asks for it.
func (s *Snapshotter) viewDevice(ctx context.Context, image string) ([]mount.Mount, error) {
	if s.images.writer == nil {
		return nil, fmt.Errorf("label %s: devices are not handed out: %w", labels.Writable, errdefs.ErrNotImplemented)
	}
	var dev attach.LoopDevice
	err := s.images.locked(ctx, image, func(ctx context.Context, _ bool) error {
		img, err := s.dirs.image(image)
		if err != nil {
			return err
		}
		dev, err = s.images.writer.Device(ctx, image, img)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("making a device of image %s: %w", image, err)
	}
	return deviceMount(dev, "ro"), nil
}

// detachWritable detaches the writable device of snapshot id, whose lock is held. It
// is errdefs.ErrFailedPrecondition while somebody else has it mounted.
func (s *Snapshotter) detachWritable(ctx context.Context, id string, a *attachment) error {
	at, err := mountedElsewhere(s.dirs.mountpoint(id))
	if err != nil {
		return err
	}
	if at != "" {
		return fmt.Errorf("it is mounted at %s: %w", at, errdefs.ErrFailedPrecondition)
	}
	s.images.set(a, true) // also if Recover did not know it
	err = s.images.detach(ctx, id, a)
	if errors.Is(err, fusedev.ErrBusy) {
		err = fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return err
}

// mountedElsewhere returns where else in this mount namespace the file system that
// is mounted on target is, or "".
func mountedElsewhere(target string) (string, error) {
	all, err := mountinfo.GetMounts(nil)
	if err != nil {
		return "", err
	}
	for _, m := range all {
		if m.Mountpoint != target {
			continue
		}
		for _, other := range all {
			if other.Major == m.Major && other.Minor == m.Minor && other.Mountpoint != target {
				return other.Mountpoint, nil
			}
		}
	}
	return "", nil
}

// dropWritable removes the files of a writable device that is detached.
func (s *Snapshotter) dropWritable(id string) error {
	files := s.dirs.upper(id)
	var errs []error
	for _, name := range []string{files.Data, files.Index, filepath.Join(s.dirs.block(id), writableName)} {
		errs = append(errs, ignoreMissing(os.Remove(name)))
	}
	return errors.Join(errs...)
}
