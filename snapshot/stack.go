package snapshot

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
)

// stack is what lies below a snapshot: ordinary layers, and below those at
// most one image snapshot, which stands for all overlaybd layers.
type stack struct {
	plain []string // ids, topmost first
	image string   // id, or ""
}

// stackOf splits the ids of a snapshot's parents, nearest first.
func (s *Snapshotter) stackOf(parents []string) (stack, error) {
	for i, id := range parents {
		image, err := s.dirs.isImage(id)
		if err != nil {
			return stack{}, err
		}
		if image {
			return stack{plain: parents[:i], image: id}, nil
		}
	}
	return stack{plain: parents}, nil
}

// stackOn returns what lies below a child of the committed snapshot parent.
func (s *Snapshotter) stackOn(ctx context.Context, parent string) (stack, error) {
	var ids []string
	err := s.read(ctx, func(ctx context.Context) (err error) {
		ids, err = ancestry(ctx, parent)
		return err
	})
	if err != nil {
		return stack{}, err
	}
	return s.stackOf(ids)
}

// lookup returns a snapshot, and what is below it if it is active or a view.
func (s *Snapshotter) lookup(ctx context.Context, key string) (id string, info snapshots.Info, below stack, err error) {
	var parents []string
	err = s.read(ctx, func(ctx context.Context) error {
		id, info, _, err = storage.GetInfo(ctx, key)
		if err == nil && info.Kind != snapshots.KindCommitted {
			parents, err = ancestry(ctx, info.Parent)
		}
		return err
	})
	if err == nil {
		below, err = s.stackOf(parents)
	}
	return id, info, below, err
}

// ancestry returns the id of the snapshot name and those of its parents. It
// needs a transaction.
func ancestry(ctx context.Context, name string) ([]string, error) {
	var ids []string
	for name != "" {
		id, info, _, err := storage.GetInfo(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("looking up parent %s: %w", name, err)
		}
		if info.Kind != snapshots.KindCommitted {
			return nil, fmt.Errorf("parent %s is not committed: %w", name, errdefs.ErrInvalidArgument)
		}
		ids = append(ids, id)
		name = info.Parent
	}
	return ids, nil
}

// imageOn returns the configuration that an overlaybd layer on top of parent
// builds on; it is empty for the bottom layer. An overlaybd layer cannot lie
// on an ordinary one: a block device has no place for files below it.
func (s *Snapshotter) imageOn(ctx context.Context, parent string) (imageConfig, error) {
	below, err := s.stackOn(ctx, parent)
	if err != nil {
		return imageConfig{}, err
	}
	if len(below.plain) > 0 {
		return imageConfig{}, fmt.Errorf("an overlaybd layer cannot lie on the ordinary layer %s: was the lower part of the image pulled or converted otherwise? %w",
			parent, errdefs.ErrFailedPrecondition)
	}
	if below.image == "" {
		return imageConfig{}, nil
	}
	config, err := readConfig(s.dirs.snapshot(below.image))
	if err != nil {
		return imageConfig{}, fmt.Errorf("reading what parent %s is made of: %w", parent, err)
	}
	return config, nil
}

// user is an active or view snapshot on an image.
type user struct {
	id     string
	labels map[string]string
	image  string // id
	// recorded says that the image is attached for this snapshot alone.
	recorded bool
}

// users returns the active and view snapshots that lie on an image, but for those
// with a writable device: these have the image in their own.
func (s *Snapshotter) users(ctx context.Context) ([]user, error) {
	var (
		found   []user
		parents [][]string
	)
	err := s.read(ctx, func(ctx context.Context) error {
		return storage.WalkInfo(ctx, func(ctx context.Context, info snapshots.Info) error {
			if info.Kind == snapshots.KindCommitted {
				return nil
			}
			id, _, _, err := storage.GetInfo(ctx, info.Name)
			if err != nil {
				return err
			}
			ids, err := ancestry(ctx, info.Parent)
			found = append(found, user{id: id, labels: info.Labels})
			parents = append(parents, ids)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	var users []user
	for i, u := range found {
		below, err := s.stackOf(parents[i])
		if err != nil {
			return nil, err
		}
		if below.image == "" {
			continue
		}
		if writable, err := s.dirs.isWritable(u.id); err != nil {
			return nil, err
		} else if writable {
			continue
		}
		u.image = below.image
		if u.recorded, err = s.dirs.recorded(u.id); err != nil {
			return nil, err
		}
		users = append(users, u)
	}
	return users, nil
}
