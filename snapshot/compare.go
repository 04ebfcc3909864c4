package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/attach"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
)

// What package differ asks about mounts: it is given those that the snapshotter
// returned, and they alone.

// placedName is the file in the directory of an active snapshot that says that
// Place put a layer there. Who writes to the snapshot doesn't get at it.
const placedName = "placed"

// Difference implements differ.Snapshots.
func (s *Snapshotter) Difference(ctx context.Context, lower, upper []mount.Mount, use func(ctx context.Context, l *lsmt.Layer, fsType string) error) error {
	o, err := s.owner(ctx, upper)
	if err != nil {
		return err
	}
	if o.overlaid || o.below.image != "" && s.ownerID(lower) != o.below.image {
		return errNotDevice
	}
	if o.kind == snapshots.KindCommitted {
		return s.committedLayer(ctx, o.id, use)
	}
	w, err := s.dirs.writable(o.id)
	if err != nil {
		return err
	}
	if w == nil {
		return errNotDevice
	}
	fileSystem, err := w.fileSystem()
	if err != nil {
		return err
	}
	return s.images.writer.Freeze(ctx, o.id, func(ctx context.Context, l *lsmt.Layer) error {
		return use(ctx, l, fileSystem.Type)
	})
}

// errNotDevice says that mounts are not what is asked for.
var errNotDevice = fmt.Errorf("these are not mounts of overlaybd devices: %w", errdefs.ErrNotImplemented)

// committedLayer calls use with the topmost layer of an image that was written
// here.
func (s *Snapshotter) committedLayer(ctx context.Context, id string, use func(ctx context.Context, l *lsmt.Layer, fsType string) error) error {
	config, err := readConfig(s.dirs.snapshot(id))
	if err != nil {
		return err
	}
	top := config.Lowers[len(config.Lowers)-1]
	path := ""
	if !config.Acceleration && top.Digest == "" {
		path = layerFile(top.Dir)
	}
	if path == "" {
		return errNotDevice
	}
	f, err := blob.OpenFile(path)
	if err != nil {
		return err
	}
	defer f.Close()
	l, err := backstore.OpenLayer(ctx, f)
	if err != nil {
		return err
	}
	return use(ctx, l, config.FSType)
}

// Overlaid implements differ.Snapshots.
func (s *Snapshotter) Overlaid(ctx context.Context, lower, upper []mount.Mount) (backstore.Image, error) {
	o, err := s.owner(ctx, upper)
	if err != nil {
		return backstore.Image{}, err
	}
	if !o.overlaid || s.images.writer == nil || o.below.image == "" || len(o.below.plain) > 0 || s.ownerID(lower) != o.below.image {
		return backstore.Image{}, errNotDevice
	}
	img, err := s.dirs.image(o.below.image)
	if err == nil && img.FSType == "" {
		img.FSType, err = s.images.writer.FSType(o.below.image)
	}
	return img, err
}

// Scratch implements differ.Snapshots.
func (s *Snapshotter) Scratch(ctx context.Context, img backstore.Image, fill func(ctx context.Context, dir string) error,
	use func(ctx context.Context, l *lsmt.Layer, fsType string) error,
) (err error) {
	dir, err := os.MkdirTemp(s.dirs.staging(), "scratch-")
	if err != nil {
		return err
	}
	target := filepath.Join(dir, "mountpoint")
	img.Upper = &lsmt.UpperFiles{Data: filepath.Join(dir, writableData), Index: filepath.Join(dir, writableIndex)}
	id := filepath.Base(dir)
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Mkdir(target, 0o700); err != nil {
		return err
	}
	opts := attach.WritableOptions{Target: target, Create: &lsmt.UpperOptions{}}
	if _, err := s.images.writer.AttachWritable(ctx, id, img, opts); err != nil {
		return err
	}
	err = fill(ctx, target)
	// ctx may be why it failed; the device must go all the same.
	err = errors.Join(err, s.images.devices.Detach(context.WithoutCancel(ctx), id, target))
	if err != nil {
		return err
	}
	return useUpper(ctx, *img.Upper, func(ctx context.Context, l *lsmt.Layer) error { return use(ctx, l, img.FSType) })
}

// Place implements differ.Snapshots.
func (s *Snapshotter) Place(ctx context.Context, mounts []mount.Mount, r io.Reader) error {
	o, err := s.owner(ctx, mounts)
	if err != nil {
		return err
	}
	w, err := s.dirs.writable(o.id)
	if err != nil {
		return err
	}
	if o.kind != snapshots.KindActive || o.below.image == "" || len(o.below.plain) > 0 || w == nil && !o.overlaid {
		return errNotDevice
	}
	if w != nil {
		err = s.discardWritable(ctx, o)
	} else {
		err = s.emptyOverlay(o.id)
	}
	if err != nil {
		return fmt.Errorf("making room for a layer: %w", err)
	}
	if err := writeLayer(filepath.Join(s.dirs.fs(o.id), backstore.LayerFile), r); err != nil {
		return fmt.Errorf("placing a layer: %w", err)
	}
	return writeFile(s.dirs.snapshot(o.id), placedName, nil)
}

// discardWritable makes a writable snapshot an ordinary one.
func (s *Snapshotter) discardWritable(ctx context.Context, o mountOwner) error {
	return s.images.exclusive(o.id, func(a *attachment) error {
		if err := s.stillWritable(ctx, o.id, o.key); err != nil {
			return err
		}
		if err := s.detachWritable(ctx, o.id, a); err != nil {
			return err
		}
		if err := s.dropWritable(o.id); err != nil {
			return err
		}
		s.images.unuse(o.id)
		s.images.use(o.below.image, 1) // now that it has no device of its own
		if err := os.Remove(s.dirs.mountpoint(o.id)); err != nil {
			return err
		}
		// A Commit that failed may have left something there, too.
		return os.RemoveAll(s.dirs.block(o.id))
	})
}

// emptyOverlay makes sure that nobody has written to a snapshot.
func (s *Snapshotter) emptyOverlay(id string) error {
	at, err := mountedOver(s.dirs.fs(id))
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dirs.fs(id))
	if err == nil && (at != "" || len(entries) > 0) {
		err = fmt.Errorf("it has files, or is mounted: %w", errdefs.ErrFailedPrecondition)
	}
	return err
}

// placed reports whether Place put a layer into snapshot id.
func (l layout) placed(id string) bool {
	_, err := os.Lstat(filepath.Join(l.snapshot(id), placedName))
	return err == nil
}

// writeLayer writes a durable file.
func writeLayer(path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return syncDir(filepath.Dir(path))
}

// mountOwner is the snapshot whose mounts somebody has.
type mountOwner struct {
	id, key  string
	kind     snapshots.Kind
	below    stack
	overlaid bool // with overlayfs
}

// owner finds the snapshot that mounts are of. For a view of an image that is the
// image.
func (s *Snapshotter) owner(ctx context.Context, mounts []mount.Mount) (mountOwner, error) {
	o := mountOwner{id: s.ownerID(mounts)}
	if o.id == "" {
		return o, errNotDevice
	}
	o.overlaid = mounts[0].Type == "overlay"
	var parents []string
	found := false
	err := s.read(ctx, func(ctx context.Context) error {
		return storage.WalkInfo(ctx, func(ctx context.Context, info snapshots.Info) error {
			id, _, _, err := storage.GetInfo(ctx, info.Name)
			if err != nil || id != o.id {
				return err
			}
			found, o.kind, o.key = true, info.Kind, info.Name
			parents, err = ancestry(ctx, info.Parent)
			return err
		})
	})
	if err == nil && !found {
		err = errNotDevice
	}
	if err != nil {
		return o, err
	}
	o.below, err = s.stackOf(parents)
	return o, err
}

// ownerID returns the id of the snapshot that mounts are of, "" if they are of
// none.
func (s *Snapshotter) ownerID(mounts []mount.Mount) string {
	if len(mounts) != 1 {
		return ""
	}
	m := mounts[0]
	switch {
	case m.Type == "overlay":
		for _, o := range m.Options {
			if upper, ok := strings.CutPrefix(o, "upperdir="); ok {
				return s.dirs.idOf(upper, s.dirs.fs)
			}
		}
	case m.Type == "bind":
		return s.dirs.idOf(m.Source, s.dirs.mountpoint)
	case s.images.writer != nil:
		if id, err := s.images.writer.LoopID(m.Source); err == nil {
			return id
		}
	}
	return ""
}

// idOf returns the id for which of returns path, or "".
func (l layout) idOf(path string, of func(id string) string) string {
	rest, ok := strings.CutPrefix(path, l.snapshots()+"/")
	id, _, _ := strings.Cut(rest, "/")
	if !ok || of(id) != path {
		return ""
	}
	return id
}
