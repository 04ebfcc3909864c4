package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/moby/sys/mountinfo"

	"github.com/reprise-containers/reprise/backstore/fusedev"
)

// Remove implements snapshots.Snapshotter. What is still mounted, or has
// children, is not removed: errdefs.ErrFailedPrecondition.
func (s *Snapshotter) Remove(ctx context.Context, key string) error {
	if err := s.remove(ctx, key); err != nil {
		return fmt.Errorf("removing snapshot %s: %w", key, err)
	}
	return nil
}

func (s *Snapshotter) remove(ctx context.Context, key string) error {
	id, info, below, err := s.lookup(ctx, key)
	if err != nil {
		return err
	}
	if info.Kind != snapshots.KindCommitted {
		return s.removeUser(ctx, key, id, below.image)
	}
	image, err := s.dirs.isImage(id)
	if err != nil {
		return err
	}
	if image {
		return s.images.exclusive(id, func(image *attachment) error {
			return s.removeImage(ctx, key, id, image)
		})
	}
	return s.drop(ctx, key, id)
}

// removeImage removes an image snapshot whose lock is held. As long as it is,
// nobody can attach the image, and a child that is created meanwhile makes the
// removal fail and the image be attached again.
func (s *Snapshotter) removeImage(ctx context.Context, key, id string, image *attachment) error {
	if image.attached {
		children := false
		err := s.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
			children = children || info.Parent == key
			return nil
		})
		if err != nil {
			return err
		}
		if children {
			return fmt.Errorf("it has children: %w", errdefs.ErrFailedPrecondition)
		}
		if err := s.images.detach(ctx, id, image); err != nil {
			return fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
		}
	}
	return s.drop(ctx, key, id)
}

// removeUser removes an active or view snapshot, and detaches the image below
// if this was its last user.
func (s *Snapshotter) removeUser(ctx context.Context, key, id, image string) error {
	if target, err := mountedOver(s.dirs.fs(id)); err != nil || target != "" {
		return firstOf(err, fmt.Errorf("it is mounted at %s: %w", target, errdefs.ErrFailedPrecondition))
	}
	writable, err := s.dirs.isWritable(id)
	if err != nil {
		return err
	}
	if writable {
		return s.removeWritable(ctx, key, id)
	}
	if err := s.drop(ctx, key, id); err != nil {
		return err
	}
	s.images.use(image, -1)
	if image == "" || s.cfg.KeepIdle {
		return nil
	}
	if err := s.images.detachIdle(ctx, image); err != nil {
		// The snapshot is gone all the same, and Cleanup tries again.
		log.G(ctx).WithError(err).WithField("image", image).Info("leaving an image attached for the time being")
	}
	return nil
}

// removeWritable removes an active snapshot with a writable device, which is
// detached first: without the name, nobody could try again.
func (s *Snapshotter) removeWritable(ctx context.Context, key, id string) error {
	err := s.images.exclusive(id, func(a *attachment) error {
		if err := s.stillWritable(ctx, id, key); err != nil {
			return err
		}
		err := s.detachWritable(ctx, id, a)
		if errors.Is(err, fusedev.ErrUnsynced) { // it is unmounted, and what is lost was to be deleted
			err = s.detachWritable(ctx, id, a)
		}
		if err != nil {
			return err
		}
		return s.drop(ctx, key, id)
	})
	if err == nil {
		s.images.unuse(id)
	}
	return err
}

// drop removes a snapshot from the metastore and then, unless that is left to
// Cleanup, its directory. If it has a device of its own, that goes first.
func (s *Snapshotter) drop(ctx context.Context, key, id string) error {
	err := s.write(ctx, func(ctx context.Context) error {
		_, _, err := storage.Remove(ctx, key)
		return err
	})
	if err != nil {
		return err
	}
	if err := s.endRecording(ctx, id); err != nil { // sweep tries again
		log.G(ctx).WithError(err).WithField("path", s.dirs.snapshot(id)).Info("leaving a recorded image attached for the time being")
	}
	if s.cfg.AsyncRemove {
		return nil
	}
	if err := s.dirs.remove(id); err != nil { // the name is gone, so nobody could try again
		log.G(ctx).WithError(err).WithField("path", s.dirs.snapshot(id)).Warn("leaving a directory to be cleaned up later")
	}
	return nil
}

// mountedOver returns where in this mount namespace an overlay with the given
// upper directory is mounted, or "".
func mountedOver(upper string) (string, error) {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		found := m.FSType == "overlay" && slices.Contains(strings.Split(m.VFSOptions, ","), "upperdir="+upper)
		return !found, found
	})
	if err != nil || len(mounts) == 0 {
		return "", err
	}
	return mounts[0].Mountpoint, nil
}
