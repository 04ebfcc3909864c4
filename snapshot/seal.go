package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// sealedFile is the name of a layer that was written here, and sealed in place.
const sealedFile = "overlaybd.sealed"

// describeWritten makes a layer of what was written to the device of snapshot id
// and returns the image that it is on top of. The device is detached then. Until
// the metastore says that the snapshot is committed, it is a writable one, whatever
// comes between.
func (s *Snapshotter) describeWritten(ctx context.Context, id string, info snapshots.Info, l labels.Labels) (imageConfig, error) {
	below, err := s.imageOn(ctx, info.Parent)
	if err != nil {
		return imageConfig{}, err
	}
	if len(below.Lowers) >= backstore.MaxLayers {
		return imageConfig{}, fmt.Errorf("there are %d layers below it, and a device has %d at most; merge them with reprise layer merge, or convert the image anew: %w",
			len(below.Lowers), backstore.MaxLayers, errdefs.ErrFailedPrecondition)
	}
	if err := s.detachWritable(ctx, id); err != nil {
		return imageConfig{}, err
	}
	if err := s.dirs.seal(ctx, id); err != nil {
		return imageConfig{}, err
	}
	config := below.with(lower{Dir: s.dirs.fs(id)}).withClaims(l)
	config.Manifest = "" // it is of the image below, without this layer
	return config, nil
}

// seal makes the file of a layer of the writable files of snapshot id. Done again,
// it makes the same file.
func (l layout) seal(ctx context.Context, id string) error {
	files := l.upper(id)
	sealed := filepath.Join(l.fs(id), sealedFile)
	if err := l.unseal(id); err != nil {
		return err
	}
	err := lsmt.SealUpper(ctx, *files, 0)
	if errors.Is(err, lsmt.ErrTooManyRecords) {
		return commitUpper(ctx, *files, filepath.Join(l.fs(id), backstore.LayerFile))
	}
	if err != nil {
		return fmt.Errorf("sealing what was written: %w", err)
	}
	if err := os.Link(files.Data, sealed); err != nil {
		return fmt.Errorf("sealing what was written: %w", err)
	}
	return syncDir(l.fs(id))
}

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
