package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// A container that is recorded has the image below it for itself: as a second
// device, whose page cache is cold, mounted in the container's own snapshot. The
// directory record/ says that it has, for as long as the snapshot exists, also
// when nothing is recorded any more. So nobody has to remove the image first,
// and what other containers read is not in the recording.

// record attaches the image below a new snapshot for it alone and has its reads
// recorded, if somebody asks for it: a label of the container, or the node. What
// only the node wants is never an error.
func (s *Snapshotter) record(ctx context.Context, snap storage.Snapshot, r request) error {
	// Labels of a layer are for whoever made the image to choose.
	if class(r.labels, r.key) != labels.Root {
		return nil
	}
	below, err := s.stackOf(snap.ParentIDs)
	if err != nil || below.image == "" {
		return err
	}
	opts := RecordOptions{Asked: r.labels.RecordTrace, File: r.labels.RecordPath}
	switch {
	case opts.Asked && s.images.recorder == nil:
		return fmt.Errorf("label %s: recording is not supported: %w", labels.RecordTrace, errdefs.ErrNotImplemented)
	case opts.Asked:
		return s.attachRecorded(ctx, snap.ID, below.image, opts)
	case s.images.recorder == nil || !s.wanted(below.image):
		return nil
	}
	if err := s.attachRecorded(ctx, snap.ID, below.image, RecordOptions{}); err != nil {
		log.G(ctx).WithError(err).WithField("key", r.key).Info("a container is not recorded")
		// Whatever is left must not hold its mounts.
		return errors.Join(s.endRecording(context.WithoutCancel(ctx), snap.ID), ignoreMissing(os.Remove(s.dirs.record(snap.ID))))
	}
	return nil
}

// wanted reports whether the node records containers on an image. One that has a
// trace needs no other.
func (s *Snapshotter) wanted(image string) bool {
	img, err := s.dirs.image(image)
	return err == nil && img.Trace == nil && s.images.recorder.Wanted(img.Ref)
}

func (s *Snapshotter) attachRecorded(ctx context.Context, id, image string, opts RecordOptions) error {
	if err := os.Mkdir(s.dirs.record(id), 0o700); err != nil {
		return fmt.Errorf("making room for a recording: %w", err)
	}
	s.images.use(recordID(id), 1)
	_, err := s.images.attachAs(ctx, recordID(id), image, func(ctx context.Context, img backstore.Image, target string, _ bool) error {
		return s.images.recorder.Record(ctx, recordID(id), img, target, opts)
	})
	return err
}

// attach mounts the image below snapshot id, or that which the snapshot has for
// itself, and returns where.
func (s *Snapshotter) attach(ctx context.Context, id, image string) (string, error) {
	own, err := s.dirs.recorded(id)
	if err != nil {
		return "", err
	}
	if !own {
		return s.images.attach(ctx, image)
	}
	return s.images.attachAs(ctx, recordID(id), image, func(ctx context.Context, img backstore.Image, target string, _ bool) error {
		return s.images.devices.Attach(ctx, recordID(id), img, target)
	})
}

// endRecording detaches what snapshot id has for itself, if anything. Nobody
// uses the snapshot any more.
func (s *Snapshotter) endRecording(ctx context.Context, id string) error {
	if own, err := s.dirs.recorded(id); err != nil || !own {
		return err
	}
	s.images.unuse(recordID(id))
	return s.images.exclusive(recordID(id), func(a *attachment) error {
		return s.images.detach(ctx, recordID(id), a)
	})
}

// abandonRecordings says of the recordings of an earlier process that they will
// not be finished.
func (s *Snapshotter) abandonRecordings(users []user) {
	if s.images.recorder == nil {
		return
	}
	for _, u := range users {
		if !u.recorded {
			continue
		}
		l, err := labels.Parse(u.labels)
		if err != nil {
			continue // it was parsed when the snapshot was made
		}
		s.images.recorder.Abandon(recordID(u.id), RecordOptions{Asked: l.RecordTrace, File: l.RecordPath})
	}
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
