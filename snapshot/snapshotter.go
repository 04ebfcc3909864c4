package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/continuity/fs"
	bolt "go.etcd.io/bbolt"
)

// lockTimeout is how long New waits for another process to close the metastore.
const lockTimeout = 30 * time.Second

// Snapshotter implements containerd's snapshots.Snapshotter and Cleaner. All
// methods may be called concurrently.
type Snapshotter struct {
	cfg     Config
	dirs    layout
	store   *storage.MetaStore
	images  *attachments
	caches  CacheUser // nil if the devices cannot tell
	overlay []string  // options of every overlay mount
}

var (
	_ snapshots.Snapshotter = (*Snapshotter)(nil)
	_ snapshots.Cleaner     = (*Snapshotter)(nil)
)

// New opens the snapshotter below cfg.Root, which it creates if need be, and
// brings devices and directories into line with what the metastore says. If
// devices has the method of CacheUser, Usage reports what lazy layers occupy.
func New(ctx context.Context, cfg Config, devices Devices) (*Snapshotter, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuring the snapshotter: %w", err)
	}
	if err := os.MkdirAll(cfg.Root, 0o700); err != nil {
		return nil, err
	}
	// Devices and overlayfs both want the path that mountinfo shows.
	root, err := filepath.EvalSymlinks(cfg.Root)
	if err != nil {
		return nil, err
	}
	if ok, err := fs.SupportsDType(root); err != nil || !ok {
		return nil, fmt.Errorf("%s cannot hold snapshots: its file system does not report file types (d_type); xfs needs ftype=1: %w", root, err)
	}
	dirs := layout{root}
	store, err := storage.NewMetaStore(dirs.metadata(), func(o *bolt.Options) error {
		o.Timeout = lockTimeout
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", dirs.metadata(), err)
	}
	s := &Snapshotter{
		cfg:     cfg,
		dirs:    dirs,
		store:   store,
		images:  newAttachments(devices, dirs, cfg.AttachTimeout),
		overlay: overlayOptions(ctx, root, cfg.MountOptions),
	}
	s.caches, _ = devices.(CacheUser)
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return s, nil
}

// open takes the lock of the metastore before it touches anything that may
// belong to a process still running.
func (s *Snapshotter) open(ctx context.Context) error {
	if err := s.initialise(ctx); err != nil {
		return fmt.Errorf("opening %s, is another snapshotter using it? %w", s.dirs.metadata(), err)
	}
	if err := s.dirs.create(); err != nil {
		return fmt.Errorf("creating directories of the snapshotter: %w", err)
	}
	if err := s.reconcile(ctx); err != nil {
		return fmt.Errorf("reconciling snapshots with devices: %w", err)
	}
	return nil
}

// Close closes the metastore. Images stay attached: containers go on.
func (s *Snapshotter) Close() error { return s.store.Close() }

// Stat implements snapshots.Snapshotter.
func (s *Snapshotter) Stat(ctx context.Context, key string) (info snapshots.Info, err error) {
	err = s.read(ctx, func(ctx context.Context) error {
		_, info, _, err = storage.GetInfo(ctx, key)
		return err
	})
	return info, err
}

// Update implements snapshots.Snapshotter. It changes labels only; what a
// committed snapshot is made of does not depend on them.
func (s *Snapshotter) Update(ctx context.Context, info snapshots.Info, fieldpaths ...string) (updated snapshots.Info, err error) {
	err = s.write(ctx, func(ctx context.Context) error {
		updated, err = storage.UpdateInfo(ctx, info, fieldpaths...)
		return err
	})
	return updated, err
}

// Walk implements snapshots.Snapshotter.
func (s *Snapshotter) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	return s.read(ctx, func(ctx context.Context) error {
		return storage.WalkInfo(ctx, fn, filters...)
	})
}

// read runs fn in a transaction that sees one state of the metastore.
func (s *Snapshotter) read(ctx context.Context, fn func(context.Context) error) error {
	return s.store.WithTransaction(ctx, false, fn)
}

// write runs fn in a transaction that is rolled back if fn fails. There is one
// at a time, so nothing that can block belongs into it.
func (s *Snapshotter) write(ctx context.Context, fn func(context.Context) error) error {
	return s.store.WithTransaction(ctx, true, fn)
}
