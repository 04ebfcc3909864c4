package snapshot

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/log"

	"github.com/reprise-containers/reprise/snapshot/labels"
)

// prepareTrace makes room for containerd to unpack a trace layer into fs/.
func (s *Snapshotter) prepareTrace(ctx context.Context, r request) ([]mount.Mount, error) {
	if _, err := s.imageBelowTrace(ctx, r.parent); err != nil {
		return nil, err
	}
	return s.prepareDirectory(ctx, r)
}

// prepareDownload makes room for containerd to unpack an overlaybd blob into
// fs/. What came is looked at when it is committed.
func (s *Snapshotter) prepareDownload(ctx context.Context, r request) ([]mount.Mount, error) {
	if _, err := s.imageOn(ctx, r.parent); err != nil {
		return nil, err
	}
	return s.prepareDirectory(ctx, r)
}

// prepareDirectory creates a snapshot that is used without what is below it.
func (s *Snapshotter) prepareDirectory(ctx context.Context, r request) ([]mount.Mount, error) {
	snap, err := s.create(ctx, r)
	if err != nil {
		return nil, err
	}
	return bind(s.dirs.fs(snap.ID), "rw"), nil
}

// prepareRoot creates a snapshot that is used on top of what is below it: the
// root file system of a container, or an ordinary layer to unpack. It mounts
// the image below if there is one.
func (s *Snapshotter) prepareRoot(ctx context.Context, r request) ([]mount.Mount, error) {
	w, err := s.wantsWritable(ctx, r)
	if err != nil {
		return nil, err
	}
	if w != nil {
		if mounts, done, err := s.prepareWritable(ctx, r, w); done || err != nil {
			return mounts, err
		}
	}
	snap, err := s.create(ctx, r)
	if err != nil {
		return nil, err
	}
	var mounts []mount.Mount
	if err = s.record(ctx, snap, r); err == nil {
		mounts, err = s.mountsOf(ctx, snap, r.labels)
	}
	if err != nil {
		s.abandon(ctx, r.key)
		return nil, err
	}
	return mounts, nil
}

// abandon takes back a snapshot whose creation did not finish. The client may
// be gone already, which is no reason to leave anything behind.
func (s *Snapshotter) abandon(ctx context.Context, key string) {
	ctx = context.WithoutCancel(ctx)
	if err := s.remove(ctx, key); err != nil {
		log.G(ctx).WithError(err).WithField("key", key).Warn("taking back a snapshot that could not be prepared")
	}
}

// Mounts implements snapshots.Snapshotter. It mounts the image again if it
// isn't mounted any more, as after a reboot.
func (s *Snapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	var (
		snap storage.Snapshot
		info snapshots.Info
	)
	err := s.read(ctx, func(ctx context.Context) (err error) {
		if snap, err = storage.GetSnapshot(ctx, key); err != nil {
			return err
		}
		_, info, _, err = storage.GetInfo(ctx, key)
		return err
	})
	var mounts []mount.Mount
	if err == nil {
		mounts, err = s.mountsAgain(ctx, snap, info)
	}
	if err != nil {
		return nil, fmt.Errorf("finding mounts of %s: %w", key, err)
	}
	return mounts, nil
}

func (s *Snapshotter) mountsAgain(ctx context.Context, snap storage.Snapshot, info snapshots.Info) ([]mount.Mount, error) {
	l, err := labels.Parse(info.Labels)
	if err != nil {
		return nil, err
	}
	if snap.Kind == snapshots.KindActive {
		if w, err := s.dirs.writable(snap.ID); err != nil {
			return nil, err
		} else if w != nil {
			return s.writableMounts(ctx, snap, info.Name, w)
		}
		switch l.Class() {
		case labels.TraceLayer, labels.LazyTrace, labels.DownloadLayer:
			return bind(s.dirs.fs(snap.ID), "rw"), nil
		}
	}
	return s.mountsOf(ctx, snap, l)
}

// mountsOf returns the mounts of a snapshot on top of what is below it, with
// the image mounted.
func (s *Snapshotter) mountsOf(ctx context.Context, snap storage.Snapshot, l labels.Labels) ([]mount.Mount, error) {
	below, err := s.stackOf(snap.ParentIDs)
	if err != nil {
		return nil, err
	}
	if snap.Kind == snapshots.KindView && l.Writable == labels.WritableDevice && below.image != "" && len(below.plain) == 0 {
		return s.viewDevice(ctx, below.image)
	}
	var lowers []string
	for _, id := range below.plain {
		lowers = append(lowers, s.dirs.fs(id))
	}
	if below.image != "" {
		target, err := s.attach(ctx, snap.ID, below.image)
		if err != nil {
			return nil, err
		}
		lowers = append(lowers, target)
	}
	return s.rootMounts(snap.ID, snap.Kind, lowers), nil
}
