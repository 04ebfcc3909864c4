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

// imagesInUse returns the ids of the images that some active or view snapshot
// lies on.
func (s *Snapshotter) imagesInUse(ctx context.Context) (map[string]bool, error) {
	type node struct {
		id, parent string
		kind       snapshots.Kind
	}
	nodes := map[string]node{}
	err := s.readAll(ctx, func(id string, info snapshots.Info) {
		nodes[info.Name] = node{id, info.Parent, info.Kind}
	})
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	seen := map[string]bool{} // committed ones whose ancestors are counted
	for _, n := range nodes {
		if n.kind == snapshots.KindCommitted {
			continue
		}
		for name := n.parent; name != "" && !seen[name]; name = nodes[name].parent {
			seen[name] = true
			image, err := s.dirs.isImage(nodes[name].id)
			if err != nil {
				return nil, err
			}
			if image {
				used[nodes[name].id] = true
				break
			}
		}
	}
	return used, nil
}

// readAll calls fn for every snapshot in the metastore.
func (s *Snapshotter) readAll(ctx context.Context, fn func(id string, info snapshots.Info)) error {
	return s.read(ctx, func(ctx context.Context) error {
		names, err := storage.IDMap(ctx)
		if err != nil {
			return err
		}
		ids := make(map[string]string, len(names))
		for id, name := range names {
			ids[name] = id
		}
		return storage.WalkInfo(ctx, func(_ context.Context, info snapshots.Info) error {
			fn(ids[info.Name], info)
			return nil
		})
	})
}
