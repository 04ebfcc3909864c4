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

// commitment is a call of Commit, understood.
type commitment struct {
	name, key string
	opts      []snapshots.Opt
	id        string
	info      snapshots.Info
	below     stack
	labels    labels.Labels
}

func (s *Snapshotter) commit(ctx context.Context, name, key string, opts []snapshots.Opt) error {
	c, err := s.commitment(ctx, name, key, opts)
	if err != nil {
		return err
	}
	writable, err := s.dirs.isWritable(c.id)
	if err != nil {
		return err
	}
	if writable {
		return s.commitWritten(ctx, c)
	}
	config, isImage, err := s.describe(ctx, c)
	if err != nil {
		return err
	}
	if isImage {
		if err := config.write(s.dirs.snapshot(c.id)); err != nil {
			return fmt.Errorf("describing the layer: %w", err)
		}
	}
	if err := s.commitActive(ctx, c); err != nil {
		return err
	}
	s.images.use(c.below.image, -1) // Cleanup detaches it, not to be slow here
	s.images.unuse(recordID(c.id))  // and so if it has one for itself
	if config.Acceleration {
		s.prefetch(ctx, config)
	}
	return nil
}

// commitment looks at what is to be committed.
func (s *Snapshotter) commitment(ctx context.Context, name, key string, opts []snapshots.Opt) (commitment, error) {
	c := commitment{name: name, key: key, opts: opts}
	var err error
	if c.id, c.info, c.below, err = s.lookup(ctx, key); err != nil {
		return c, err
	}
	if c.info.Kind != snapshots.KindActive {
		return c, fmt.Errorf("it is not active: %w", errdefs.ErrFailedPrecondition)
	}
	if c.info.Parent == "" { // it may get one now
		base, err := apply(opts)
		if err != nil {
			return c, err
		}
		c.info.Parent = base.Parent
	}
	c.labels, err = labels.Parse(c.info.Labels)
	return c, err
}

// commitActive commits what is in the directory of c to the metastore.
func (s *Snapshotter) commitActive(ctx context.Context, c commitment) error {
	usage, err := fs.DiskUsage(ctx, s.dirs.fs(c.id))
	if err != nil {
		return err
	}
	return s.write(ctx, func(ctx context.Context) error {
		_, err := storage.CommitActive(ctx, c.key, c.name, snapshots.Usage(usage), c.opts...)
		return err
	})
}

// describe looks at what was unpacked into a snapshot. It returns false for an
// ordinary layer.
func (s *Snapshotter) describe(ctx context.Context, c commitment) (imageConfig, bool, error) {
	dir := s.dirs.fs(c.id)
	class := class(c.labels, c.info.Name)
	if class == labels.Root && s.dirs.placed(c.id) {
		class = labels.Unpack
	}
	switch class {
	case labels.TraceLayer, labels.LazyTrace: // the latter was prepared by an older version
		config, err := s.describeTrace(ctx, c)
		return config, true, err
	case labels.DownloadLayer:
		if err := holdsLayer(dir); err != nil {
			return imageConfig{}, false, fmt.Errorf("layer %s is annotated as overlaybd: %w: %w", c.labels.Blob, err, errdefs.ErrFailedPrecondition)
		}
	case labels.Unpack:
		// Without annotations, the content has to speak for itself. A root
		// file system that merely has a file of that name is not meant.
		if c.below.image != "" && len(c.below.plain) == 0 && onlyTrace(dir) {
			config, err := s.describeTrace(ctx, c)
			return config, true, err
		}
		if !onlyLayer(dir) {
			return imageConfig{}, false, nil
		}
	default:
		return imageConfig{}, false, nil
	}
	below, err := s.imageOn(ctx, c.info.Parent)
	if err != nil {
		return imageConfig{}, false, err
	}
	here := localLower(ctx, dir, c.labels, c.info.Labels)
	return below.with(here).withClaims(c.labels), true, nil
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
