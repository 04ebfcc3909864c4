package snapshot

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"github.com/containerd/log"
)

// overlayOptions returns the options of every overlay mount, chosen as
// containerd's overlay snapshotter chooses them. metacopy and redirect_dir stay
// as the kernel is set.
func overlayOptions(ctx context.Context, root string, configured []string) []string {
	options := slices.Clone(configured)
	if !hasOption(options, "userxattr") {
		need, err := overlayutils.NeedsUserXAttr(root)
		if err != nil {
			log.G(ctx).WithError(err).Warn("cannot find out whether overlayfs needs userxattr, leaving it out")
		} else if need {
			options = append(options, "userxattr")
		}
	}
	// The index ties an upper directory to one lower mount, but an image is
	// mounted anew after a reboot.
	if _, err := os.Stat("/sys/module/overlay/parameters/index"); err == nil && !hasOption(options, "index") {
		options = append(options, "index=off")
	}
	return options
}

// hasOption reports whether key, or key=value, is among options.
func hasOption(options []string, key string) bool {
	return slices.ContainsFunc(options, func(o string) bool {
		name, _, _ := strings.Cut(o, "=")
		return name == key
	})
}

// bind returns the mount of a directory itself.
func bind(dir, mode string) []mount.Mount {
	return []mount.Mount{{Type: "bind", Source: dir, Options: []string{mode, "rbind"}}}
}

// rootMounts returns the mounts of a snapshot over lowers, topmost first.
func (s *Snapshotter) rootMounts(id string, kind snapshots.Kind, lowers []string) []mount.Mount {
	view := kind == snapshots.KindView
	switch {
	case len(lowers) == 0 && view:
		return bind(s.dirs.fs(id), "ro")
	case len(lowers) == 0:
		return bind(s.dirs.fs(id), "rw")
	case len(lowers) == 1 && view:
		return bind(lowers[0], "ro")
	}
	var options []string
	if !view {
		options = append(options, "workdir="+s.dirs.work(id), "upperdir="+s.dirs.fs(id))
	}
	options = append(options, "lowerdir="+strings.Join(lowers, ":"))
	options = append(options, s.overlay...)
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: options}}
}
