package snapshot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"

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
	config, isImage, err := s.describe(ctx, id, info)
	if err != nil {
		return err
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
	if err == nil {
		s.images.use(below.image, -1) // Cleanup detaches it, not to be slow here
	}
	return err
}

// describe looks at what was unpacked into a snapshot. It returns false for an
// ordinary layer.
func (s *Snapshotter) describe(ctx context.Context, id string, info snapshots.Info) (imageConfig, bool, error) {
	l, err := labels.Parse(info.Labels)
	if err != nil {
		return imageConfig{}, false, err
	}
	switch class(l, info.Name) {
	case labels.TraceLayer:
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
	here := lower{Dir: s.dirs.fs(id), Digest: l.Blob, Size: l.BlobSize}
	if here.Size == 0 {
		here.Digest = ""
	}
	return below.with(here).withClaims(l), true, nil
}

func (s *Snapshotter) describeTrace(ctx context.Context, id string, info snapshots.Info, l labels.Labels) (imageConfig, error) {
	below, err := s.imageOn(ctx, info.Parent)
	if err != nil {
		return imageConfig{}, err
	}
	config := below.withClaims(l)
	trace := filepath.Join(s.dirs.fs(id), "trace")
	if st, err := os.Lstat(trace); err != nil || !st.Mode().IsRegular() {
		// The image runs as well without it, only slower.
		log.G(ctx).WithField("layer", l.Blob).Warn("the trace layer has no file named trace, it is ignored")
		return config.withoutTrace(), nil
	}
	return config.withTrace(s.dirs.fs(id)), nil
}
