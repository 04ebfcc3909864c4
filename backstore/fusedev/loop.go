package fusedev

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/reprise-containers/reprise/backstore/fusedev/kernel"
)

// LoopInfo is a loop device that was made by Loop.
type LoopInfo struct {
	ID  string
	Dev string // "/dev/loop3"
}

// Loop returns a loop device of device id, which stays until Unloop, also when
// the daemon ends. It can be written if the device is a device.Writable. If
// there is one already, also of an earlier daemon, that is it. A device that can
// be written has one loop device: while it is mounted for writing, this fails
// with ErrBusy, and Mount uses the one that Loop made.
func (s *Server) Loop(ctx context.Context, id string) (dev string, err error) {
	e, writable, err := s.lookUp(ctx, id)
	if err == nil {
		dev, err = s.mounter.Loop(ctx, s.file(e), s.filesOf(id), writable)
	}
	if err != nil {
		return "", fmt.Errorf("making a loop device of device %s: %w", id, err)
	}
	return dev, nil
}

// Unloop takes the loop devices of device id away that Loop made, or returns an
// error that wraps ErrBusy if somebody has one open, and then leaves it as it is,
// or, if the device is not known any more, to go when it is closed. It does
// nothing if there is none.
func (s *Server) Unloop(ctx context.Context, id string) error {
	return s.unloop(ctx, false, func(_, of string) bool { return of == id })
}

// Loops returns the loop devices that were made by Loop, also of earlier daemons
// and of devices that were removed, ordered by ID. It asks the kernel's tables
// only.
func (s *Server) Loops() ([]LoopInfo, error) {
	loops, err := kernel.Loops(s.cfg.fuseDir())
	if err != nil {
		return nil, err
	}
	var infos []LoopInfo
	for _, l := range loops {
		if !l.Autoclear {
			infos = append(infos, LoopInfo{ID: idOf(filepath.Base(l.File)), Dev: l.Dev})
		}
	}
	slices.SortFunc(infos, func(a, b LoopInfo) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Dev, b.Dev)) })
	return infos, nil
}

// unloop takes away the loop devices for which wanted, given the file's name and
// the device's ID, returns true.
func (s *Server) unloop(ctx context.Context, lazy bool, wanted func(name, id string) bool) error {
	loops, err := kernel.Loops(s.cfg.fuseDir())
	if err != nil {
		return err
	}
	found := make(map[string]string)
	for _, l := range loops {
		if name := filepath.Base(l.File); !l.Autoclear && wanted(name, idOf(name)) {
			found[l.Dev] = l.File
		}
	}
	if len(found) == 0 {
		return nil
	}
	return s.mounter.Unloop(ctx, found, s.cfg.Patience, lazy)
}

// Tidy undoes what children of an earlier daemon could not: it thaws what they
// left frozen when they were killed, and takes away the loop devices of devices
// that are not known, those that are open as soon as they are closed. It is for
// after Ready.
func (s *Server) Tidy(ctx context.Context) error {
	mounts, err := s.Mounts()
	if err != nil {
		return err
	}
	var targets []string
	for _, m := range mounts {
		targets = append(targets, m.Target)
	}
	if err := s.mounter.Thaw(ctx, targets); err != nil {
		return err
	}
	return s.unloop(ctx, true, func(name, id string) bool {
		e := s.table.byID(id)
		return e == nil || e.fileName() != name
	})
}
