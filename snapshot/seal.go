package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// sealedFile is the name of a layer that was written here, and sealed in place.
const sealedFile = "overlaybd.sealed"

// commitWritten commits a snapshot with a writable device: what was written becomes
// a layer. Whatever comes between, it is either a writable snapshot or a committed
// one, as the metastore says:
//
//  1. The device is detached, which flushes it. It can be attached again.
//  2. The writable file is sealed in place. It still opens as a writable one.
//  3. The file gets its name as a layer. Who attaches the device again takes that
//     name away first.
//  4. The snapshot is described as an image, which nobody reads before 5.
//  5. The metastore commits.
//  6. The names of the writable files go, here or when the snapshotter starts.
//
// All of it is done with the lock of the device, for attaching it between 3 and 5
// would have what is being committed written to.
func (s *Snapshotter) commitWritten(ctx context.Context, c commitment) error {
	err := s.images.exclusive(c.id, func(a *attachment) error {
		if err := s.stillWritable(ctx, c.id, c.key); err != nil {
			return err
		}
		config, err := s.describeWritten(ctx, c)
		if err != nil {
			return err
		}
		if err := s.detachWritable(ctx, c.id, a); err != nil {
			return err
		}
		if err := s.dirs.seal(ctx, c.id); err != nil {
			return fmt.Errorf("sealing what was written: %w", err)
		}
		if err := config.write(s.dirs.snapshot(c.id)); err != nil {
			return fmt.Errorf("describing the layer: %w", err)
		}
		c.opts = withLocalCommit(c.opts, s.dirs.sealed(c.id))
		if err := s.commitActive(ctx, c); err != nil {
			return err
		}
		if err := s.dropWritable(c.id); err != nil { // reconcile tries again
			log.G(ctx).WithError(err).WithField("key", c.key).Warn("leaving the files of a writable device that was committed")
		}
		return nil
	})
	if err == nil {
		s.images.unuse(c.id)
	}
	return err
}

// describeWritten returns the image with the layer that is to be made of what was
// written.
func (s *Snapshotter) describeWritten(ctx context.Context, c commitment) (imageConfig, error) {
	w, err := s.dirs.writable(c.id)
	if err != nil {
		return imageConfig{}, err
	}
	below, err := s.imageOn(ctx, c.info.Parent)
	if err != nil {
		return imageConfig{}, err
	}
	if len(below.layers()) >= backstore.MaxLayers {
		return imageConfig{}, fmt.Errorf("there are %d layers below it, and a device has %d at most; merge them with reprise layer merge, or convert the image anew: %w",
			len(below.layers()), backstore.MaxLayers, errdefs.ErrFailedPrecondition)
	}
	config := below.with(lower{Dir: s.dirs.fs(c.id)}).withClaims(c.labels)
	config.FSType = below.FSType // what a label says is of a file system that is to be made
	if len(below.Lowers) == 0 {
		made, err := w.fileSystem()
		if err != nil {
			return imageConfig{}, err
		}
		config.FSType = made.Type
	}
	config.Manifest = "" // it is of the image below, without this layer
	return config, nil
}

// sealed returns the file of the layer that was written in snapshot id. Image
// builders look for it under this name, beside what the label says.
func (l layout) sealed(id string) string { return filepath.Join(l.fs(id), sealedFile) }

// seal makes the file of a layer of the writable files of snapshot id. Done again,
// it makes the same file.
func (l layout) seal(ctx context.Context, id string) error {
	files := l.upper(id)
	if err := l.unseal(id); err != nil {
		return err
	}
	err := lsmt.SealUpper(ctx, *files, 0)
	if errors.Is(err, lsmt.ErrTooManyRecords) {
		return commitUpper(ctx, *files, l.sealed(id))
	}
	if err == nil {
		err = os.Link(files.Data, l.sealed(id))
	}
	if err != nil {
		return err
	}
	return syncDir(l.fs(id))
}

// unseal takes back what a Commit did that failed: the layer of what was written,
// which is the file that is to be written again, or a copy of it.
func (l layout) unseal(id string) error { return ignoreMissing(os.Remove(l.sealed(id))) }

// useUpper calls use with the layer in the files of a writable one that nobody
// writes.
func useUpper(ctx context.Context, files lsmt.UpperFiles, use func(ctx context.Context, l *lsmt.Layer) error) error {
	data, err := lsmt.OpenFile(files.Data)
	if err != nil {
		return err
	}
	defer data.Close()
	index, err := blob.OpenFile(files.Index)
	if err != nil {
		return err
	}
	defer index.Close()
	l, err := lsmt.OpenWritable(ctx, data, index)
	if err != nil {
		return err
	}
	return use(ctx, l)
}

// commitUpper writes the layer in files to path anew, for an index that is too
// long where it is: in a layer that is written in order there are fewer records.
func commitUpper(ctx context.Context, files lsmt.UpperFiles, path string) error {
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	defer f.Close()
	err = useUpper(ctx, files, func(ctx context.Context, l *lsmt.Layer) error { return l.Commit(ctx, f, lsmt.Identity{}) })
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("committing what was written: %w", err), os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

// withLocalCommit adds to the options of a Commit what a layer that was written
// here is labelled with.
func withLocalCommit(opts []snapshots.Opt, path string) []snapshots.Opt {
	return append(opts[:len(opts):len(opts)], func(info *snapshots.Info) error {
		add := map[string]string{labels.LocalCommit: path}
		for k, v := range info.Labels {
			if k != labels.Writable {
				add[k] = v
			}
		}
		info.Labels = add
		return nil
	})
}
