package snapshot

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/continuity/fs"

	"github.com/reprise-containers/reprise/snapshot/labels"
)

// Usage implements snapshots.Snapshotter: the bytes on the disk of this node.
// They are counted now for an active snapshot and were when another was
// committed; a lazy layer has what the cache holds of its blob, and what of it
// was downloaded since.
func (s *Snapshotter) Usage(ctx context.Context, key string) (usage snapshots.Usage, err error) {
	var (
		id   string
		info snapshots.Info
	)
	err = s.read(ctx, func(ctx context.Context) error {
		id, info, usage, err = storage.GetInfo(ctx, key)
		return err
	})
	if err == nil && info.Kind == snapshots.KindActive {
		var used fs.Usage
		used, err = fs.DiskUsage(ctx, s.dirs.fs(id))
		usage = snapshots.Usage(used)
		usage.Add(s.dirs.written(id))
	}
	if err != nil {
		return snapshots.Usage{}, fmt.Errorf("measuring snapshot %s: %w", key, err)
	}
	l, err := labels.Parse(info.Labels)
	if err != nil || !l.Remote {
		return usage, nil
	}
	usage.Add(downloaded(s.dirs.fs(id)))
	if s.caches != nil {
		usage.Add(snapshots.Usage{Size: s.caches.CacheUsage(l.Blob)})
	}
	return usage, nil
}

// written returns what the writable layer of an active snapshot takes, if it has
// one. What is mounted is not looked at.
func (l layout) written(id string) (u snapshots.Usage) {
	files := l.upper(id)
	for _, name := range []string{files.Data, files.Index} {
		var st syscall.Stat_t
		if syscall.Lstat(name, &st) == nil {
			u.Add(snapshots.Usage{Inodes: 1, Size: st.Blocks * 512})
		}
	}
	return u
}

// downloaded returns what the files in the directory of a lazy layer take.
func downloaded(dir string) (u snapshots.Usage) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return u // it is being removed
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			u.Add(snapshots.Usage{Inodes: 1, Size: st.Blocks * 512})
		}
	}
	return u
}
