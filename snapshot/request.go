package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"

	"github.com/reprise-containers/reprise/snapshot/labels"
)

// request is a call of Prepare or View, understood.
type request struct {
	kind        snapshots.Kind
	key, parent string
	opts        []snapshots.Opt
	raw         map[string]string
	labels      labels.Labels
	writable    *writable // nil if it has no writable device
}

func parseRequest(kind snapshots.Kind, key, parent string, opts []snapshots.Opt) (request, error) {
	info, err := apply(opts)
	if err != nil {
		return request{}, err
	}
	l, err := labels.Parse(info.Labels)
	if err != nil {
		return request{}, err
	}
	return request{kind: kind, key: key, parent: parent, opts: opts, raw: info.Labels, labels: l}, nil
}

// class classifies a request or a snapshot by its labels and its key. Clients
// that unpack without containerd's unpacker, as ctr image pull --local does, set
// no label, but name what they unpack as all do (snapshots.UnpackKeyFormat);
// containerd puts the namespace before it.
func class(l labels.Labels, key string) labels.Class {
	c := l.Class()
	name := key[strings.LastIndexByte(key, '/')+1:]
	if c == labels.Root && strings.HasPrefix(name, snapshots.UnpackKeyPrefix+"-") {
		return labels.Unpack
	}
	return c
}

// apply returns what the options of a call set.
func apply(opts []snapshots.Opt) (info snapshots.Info, err error) {
	for _, opt := range opts {
		if err := opt(&info); err != nil {
			return info, err
		}
	}
	return info, nil
}

// Prepare implements snapshots.Snapshotter. For a lazy layer it returns
// errdefs.ErrAlreadyExists once the layer is committed under its target name,
// which tells containerd not to download it.
func (s *Snapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	r, err := parseRequest(snapshots.KindActive, key, parent, opts)
	if err != nil {
		return nil, fmt.Errorf("preparing %s: %w", key, err)
	}
	class := class(r.labels, key)
	var mounts []mount.Mount
	switch class {
	case labels.Lazy, labels.LazyTrace:
		err = s.prepareLazy(ctx, r)
	case labels.TraceLayer:
		mounts, err = s.prepareTrace(ctx, r)
	case labels.DownloadLayer:
		mounts, err = s.prepareDownload(ctx, r)
	case labels.TurboLayer:
		err = fmt.Errorf("TurboOCI images are not supported; convert the image to overlaybd layers: %w", errdefs.ErrNotImplemented)
	default:
		mounts, err = s.prepareRoot(ctx, r)
	}
	if err != nil {
		return nil, fmt.Errorf("preparing %s %s: %w", class, key, err)
	}
	return mounts, nil
}

// View implements snapshots.Snapshotter.
func (s *Snapshotter) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	r, err := parseRequest(snapshots.KindView, key, parent, opts)
	if err == nil {
		var mounts []mount.Mount
		if mounts, err = s.prepareRoot(ctx, r); err == nil {
			return mounts, nil
		}
	}
	return nil, fmt.Errorf("viewing %s as %s: %w", parent, key, err)
}

// create adds an active or view snapshot to the metastore and makes its
// directory.
func (s *Snapshotter) create(ctx context.Context, r request) (snap storage.Snapshot, err error) {
	staged, err := s.dirs.stage(r.kind)
	if err != nil {
		return snap, err
	}
	if r.writable != nil {
		if err := makeWritable(staged, r.writable); err != nil {
			return snap, errors.Join(err, os.RemoveAll(staged))
		}
	}
	counted := ""
	err = s.place(ctx, staged, func(ctx context.Context) (string, error) {
		snap, err = storage.CreateSnapshot(ctx, r.kind, r.key, r.parent, r.opts...)
		if err != nil {
			return "", err
		}
		below, err := s.stackOf(snap.ParentIDs)
		if err == nil {
			err = s.ownLikeParent(staged, below)
		}
		if err != nil {
			return "", err
		}
		// Before anybody can see the snapshot, let alone remove it.
		counted = below.image
		if r.writable != nil {
			counted = snap.ID
		}
		s.images.use(counted, 1)
		return snap.ID, nil
	})
	if err != nil {
		s.images.use(counted, -1)
	}
	return snap, err
}

// place runs fn in a write transaction and renames staged to the directory of
// the snapshot whose id fn returned. Afterwards staged is gone, and if the
// transaction failed so is the directory, because its id will be used again.
func (s *Snapshotter) place(ctx context.Context, staged string, fn func(context.Context) (id string, err error)) error {
	placed := ""
	err := s.write(ctx, func(ctx context.Context) error {
		id, err := fn(ctx)
		if err != nil {
			return err
		}
		if err := os.Rename(staged, s.dirs.snapshot(id)); err != nil {
			return err
		}
		placed = s.dirs.snapshot(id)
		// A power failure must not leave a name without a directory.
		return syncDir(s.dirs.snapshots())
	})
	if err == nil {
		return nil
	}
	// Moved away first: a directory of this name may soon be another's.
	if placed != "" {
		err = errors.Join(err, os.Rename(placed, staged))
	}
	return errors.Join(err, os.RemoveAll(staged))
}

// ownLikeParent gives the upper directory the owner of the layer below it, as
// containerd's overlay snapshotter does: in the merged view it is the root
// directory. An image below is not looked at, it may hang; its root directory
// belongs to root.
func (s *Snapshotter) ownLikeParent(dir string, below stack) error {
	if len(below.plain) == 0 {
		return nil
	}
	st, err := os.Stat(s.dirs.fs(below.plain[0]))
	if err != nil {
		return err
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("owner of %s is not known", s.dirs.fs(below.plain[0]))
	}
	return os.Lchown(filepath.Join(dir, "fs"), int(owner.Uid), int(owner.Gid))
}
