package fusedev

import (
	"context"
	"errors"
	"fmt"

	"github.com/reprise-containers/reprise/backstore/fusedev/holder"
	"github.com/reprise-containers/reprise/backstore/fusedev/kernel"
)

// Shutdown unmounts all devices, takes the loop devices away and unmounts the
// FUSE file system, ends the holder and makes Run return. If a mount or a loop
// device is busy it returns an error that wraps ErrBusy
// and the server goes on, without the mounts that were unmounted already. A
// mount that is pinned by another namespace does not stop it: that copy fails
// from then on, and the error wraps ErrPinned; nor does one that could not be
// written out (ErrUnsynced).
func (s *Server) Shutdown(ctx context.Context) error {
	mounts, err := s.Mounts()
	if err != nil {
		return err
	}
	var notes []error
	pinned := false
	for _, m := range mounts {
		err := s.Unmount(ctx, m.Target)
		switch {
		case errors.Is(err, ErrPinned), errors.Is(err, ErrUnsynced):
			notes = append(notes, err)
			pinned = pinned || errors.Is(err, ErrPinned)
		case err != nil:
			return fmt.Errorf("shutting the device server down: %w", err)
		}
	}
	if err := s.unloop(ctx, false, func(_, _ string) bool { return true }); err != nil {
		return fmt.Errorf("shutting the device server down: %w", err)
	}
	s.down.Store(true)
	if err := s.unmountFUSE(ctx, pinned); err != nil {
		s.down.Store(false)
		return errors.Join(append(notes, err)...)
	}
	// Serving ends even if another namespace has a copy of the mount.
	s.channel.Stop()
	if err := holder.Stop(ctx, s.cfg.socket()); err != nil && !errors.Is(err, holder.ErrNone) {
		return errors.Join(append(notes, err)...)
	}
	if err := clearRecords(s.cfg.deviceDir()); err != nil {
		return errors.Join(append(notes, err)...)
	}
	return errors.Join(notes...)
}

// unmountFUSE unmounts the FUSE file system, lazily if something pins it.
func (s *Server) unmountFUSE(ctx context.Context, pinned bool) error {
	if pinned {
		return s.mounter.Detach(ctx, []string{s.cfg.fuseDir()})
	}
	_, err := s.mounter.Unmount(ctx, s.cfg.fuseDir(), s.cfg.Patience)
	return err
}

// EnsureShared makes dir a mount point of its own, and one that propagates its
// mounts: a process that clones the mount namespace then gets a copy in which
// an unmount happens too, if it made its copy a slave as runc does, instead of
// one that keeps file systems alive. It does nothing if that is so already.
// dir must not be below a mount that the calling daemon serves.
func EnsureShared(dir string) error {
	return kernel.MakeShared(dir)
}
