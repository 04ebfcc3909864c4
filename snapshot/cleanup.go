package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/log"

	"github.com/reprise-containers/reprise/backstore"
)

// Cleanup implements snapshots.Cleaner: it deletes the directories of removed
// snapshots and detaches images without users, where that did not work before.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	var errs []error
	if !s.cfg.KeepIdle {
		for _, id := range s.images.attached() {
			errs = append(errs, s.images.detachIdle(ctx, id))
		}
	}
	errs = append(errs, s.sweep(ctx))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cleaning up: %w", err)
	}
	return nil
}

// sweep deletes the directories that belong to no snapshot.
func (s *Snapshotter) sweep(ctx context.Context) error {
	leftovers, err := s.leftovers(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range leftovers {
		err := s.images.exclusive(id, func(image *attachment) error {
			if err := s.images.detach(ctx, id, image); err != nil {
				return err
			}
			if err := s.endRecording(ctx, id); err != nil {
				return err
			}
			return s.dirs.remove(id)
		})
		if !errors.Is(err, errBusy) { // then it is being removed
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// leftovers lists what has a directory but no name. Directories appear and
// names vanish in write transactions, so there must be none meanwhile.
func (s *Snapshotter) leftovers(ctx context.Context) (ids []string, err error) {
	err = s.write(ctx, func(ctx context.Context) error {
		names, err := storage.IDMap(ctx)
		if err != nil {
			return err
		}
		dirs, err := os.ReadDir(s.dirs.snapshots())
		if err != nil {
			return err
		}
		for _, d := range dirs {
			if _, ok := names[d.Name()]; !ok && d.IsDir() {
				ids = append(ids, d.Name())
			}
		}
		return nil
	})
	return ids, err
}

// reconcile brings devices and directories into line with the metastore. It
// waits for no registry, and one image that is broken stops nothing: its users
// are told when they ask for their mounts.
func (s *Snapshotter) reconcile(ctx context.Context) error {
	users, err := s.users(ctx)
	if err != nil {
		return err
	}
	images := map[string]string{} // by attachment
	for _, u := range users {
		s.images.use(u.image, 1)
		images[u.image] = u.image
		if u.recorded {
			s.images.use(recordID(u.id), 1)
			images[recordID(u.id)] = u.image
		}
	}
	var wanted []backstore.Attachment
	for id, image := range images {
		img, err := s.dirs.image(image)
		if err != nil {
			log.G(ctx).WithError(err).WithField("image", image).Error("an image that is in use cannot be brought back")
			continue
		}
		wanted = append(wanted, backstore.Attachment{ID: id, Image: img, Target: s.dirs.mountpoint(id)})
	}
	writers, err := s.writers(ctx)
	if err != nil {
		return err
	}
	wanted = append(wanted, writers...)
	slices.SortFunc(wanted, func(a, b backstore.Attachment) int { return compareIDs(a.ID, b.ID) })
	attached, err := s.images.devices.Recover(ctx, wanted)
	if err != nil {
		return err
	}
	s.images.adopt(attached)
	s.abandonRecordings(users)
	if err := s.sweep(ctx); err != nil {
		log.G(ctx).WithError(err).Warn("leaving directories to be cleaned up later")
	}
	return nil
}

// writers returns the attachments of the active snapshots that have a writable
// device, and removes what is left of one in committed ones.
func (s *Snapshotter) writers(ctx context.Context) ([]backstore.Attachment, error) {
	type writer struct {
		id      string
		parents []string
	}
	var active []writer
	var committed []string
	err := s.read(ctx, func(ctx context.Context) error {
		return storage.WalkInfo(ctx, func(ctx context.Context, info snapshots.Info) error {
			id, _, _, err := storage.GetInfo(ctx, info.Name)
			if err != nil {
				return err
			}
			switch info.Kind {
			case snapshots.KindCommitted:
				committed = append(committed, id)
			case snapshots.KindActive:
				ids, err := ancestry(ctx, info.Parent)
				active = append(active, writer{id, ids})
				return err
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	for _, id := range committed {
		if err := s.dropWritable(id); err != nil {
			log.G(ctx).WithError(err).WithField("id", id).Warn("leaving the files of a writable device that was committed")
		}
	}
	var wanted []backstore.Attachment
	for _, a := range active {
		w, err := s.dirs.writable(a.id)
		if err == nil && w == nil {
			continue
		}
		var img backstore.Image
		if err == nil {
			s.images.use(a.id, 1)
			img, err = s.writableOn(a.id, a.parents)
		}
		if err != nil {
			log.G(ctx).WithError(err).WithField("id", a.id).Error("a writable device cannot be brought back")
			continue
		}
		attachment := backstore.Attachment{ID: a.id, Image: img, Target: s.dirs.mountpoint(a.id)}
		if w.Device {
			attachment.Target = ""
		}
		wanted = append(wanted, attachment)
	}
	return wanted, nil
}

// writableOn returns what the writable device of snapshot id on parents is made of.
func (s *Snapshotter) writableOn(id string, parents []string) (backstore.Image, error) {
	below, err := s.stackOf(parents)
	if err != nil {
		return backstore.Image{}, err
	}
	return s.dirs.writableImage(id, below.image)
}

// initialise opens the metastore and makes the buckets of an empty one, without
// which it answers every question with an error.
func (s *Snapshotter) initialise(ctx context.Context) error {
	return s.write(ctx, func(ctx context.Context) error {
		if _, err := storage.IDMap(ctx); err == nil {
			return nil
		}
		const key = "initialising"
		if _, err := storage.CreateSnapshot(ctx, snapshots.KindActive, key, ""); err != nil {
			return err
		}
		_, _, err := storage.Remove(ctx, key)
		return err
	})
}

// compareIDs orders ids by age: they are numbers without leading zeros.
func compareIDs(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}
