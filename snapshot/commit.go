package snapshot

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// Commit implements snapshots.Snapshotter. An overlaybd layer or a trace that
// containerd unpacked becomes an image snapshot, anything else stays files.
func (s *Snapshotter) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	if err := s.commit(ctx, name, key, opts); err != nil {
		return fmt.Errorf("committing %s as %s: %w", key, name, err)
	}
	return nil
}

func (s *Snapshotter) commit(ctx context.Context, name, key string, opts []snapshots.Opt) error {
	id, info, below, err := s.lookup(ctx, key)
	if err != nil {
		return err
	}
	if info.Kind != snapshots.KindActive {
		return fmt.Errorf("it is not active: %w", errdefs.ErrFailedPrecondition)
	}
	if info.Parent == "" { // it may get one now
		base, err := apply(opts)
		if err != nil {
			return err
		}
		info.Parent = base.Parent
	}
	written, err := s.dirs.writable(id)
	if err != nil {
		return err
	}
	config, isImage, err := s.describe(ctx, id, info, written)
	if err != nil {
		return err
	}
	if written != nil {
		opts = withLocalCommit(opts, layerFile(s.dirs.fs(id)))
	}
	if isImage {
		if err := config.write(s.dirs.snapshot(id)); err != nil {
			return fmt.Errorf("describing the layer: %w", err)
		}
	}
	usage, err := fs.DiskUsage(ctx, s.dirs.fs(id))
	if err != nil {
		return err
	}
	err = s.write(ctx, func(ctx context.Context) error {
		_, err := storage.CommitActive(ctx, key, name, snapshots.Usage(usage), opts...)
		return err
	})
	if err != nil {
		return err
	}
	s.images.use(below.image, -1) // Cleanup detaches it, not to be slow here
	s.images.unuse(recordID(id))  // and so if it has one for itself
	if written != nil {
		s.images.unuse(id)
		if err := s.dropWritable(id); err != nil { // reconcile tries again
			log.G(ctx).WithError(err).WithField("key", key).Warn("leaving the files of a writable device that was committed")
		}
	}
	if config.Acceleration {
		s.prefetch(ctx, config)
	}
	return nil
}

// describe looks at what was unpacked into a snapshot, or written to its device. It returns false for an
// ordinary layer.
func (s *Snapshotter) describe(ctx context.Context, id string, info snapshots.Info, written *writable) (imageConfig, bool, error) {
	l, err := labels.Parse(info.Labels)
	if err != nil {
		return imageConfig{}, false, err
	}
	if written != nil {
		config, err := s.describeWritten(ctx, id, info, l)
		return config, true, err
	}
	class := class(l, info.Name)
	if class == labels.Root && s.dirs.placed(id) {
		class = labels.Unpack
	}
	switch class {
	case labels.TraceLayer, labels.LazyTrace: // the latter was prepared by an older version
		config, err := s.describeTrace(ctx, id, info, l)
		return config, true, err
	case labels.DownloadLayer:
		if err := holdsLayer(s.dirs.fs(id)); err != nil {
			return imageConfig{}, false, fmt.Errorf("layer %s is annotated as overlaybd: %w: %w", l.Blob, err, errdefs.ErrFailedPrecondition)
		}
	case labels.Unpack:
		// Without annotations, the content has to speak for itself. A root
		// file system that merely has a file of that name is not meant.
		if !onlyLayer(s.dirs.fs(id)) {
			return imageConfig{}, false, nil
		}
	default:
		return imageConfig{}, false, nil
	}
	below, err := s.imageOn(ctx, info.Parent)
	if err != nil {
		return imageConfig{}, false, err
	}
	here := localLower(ctx, s.dirs.fs(id), l, info.Labels)
	return below.with(here).withClaims(l), true, nil
}

// localLower returns the lower of a layer that was unpacked into dir. The file
// is read without its chunk table, but whoever records what is read of it plans
// for nodes that have no file: what raw, the labels, say of the table is kept.
func localLower(ctx context.Context, dir string, l labels.Labels, raw map[string]string) lower {
	if l.BlobSize == 0 { // without annotations the blob is not known
		return lower{Dir: dir}
	}
	table, err := labels.Chunks(raw)
	if err == nil && !table.IsZero() {
		err = table.Validate(l.BlobSize)
	}
	if err != nil { // the file itself was compared with its digest
		log.G(ctx).WithError(err).WithField("layer", l.Blob).Warn("the chunk table of a downloaded layer is ignored")
		table = chunks.Ref{}
	}
	here := remoteLower(l, table)
	here.Dir = dir
	return here
}
