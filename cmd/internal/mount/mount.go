// Package mount mounts one device on one directory for as long as a command
// runs. Should the command be killed, the kernel keeps the mount, and reads of
// it wait: the same command, given again, goes on where the first one ended.
package mount

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/backstore/fusedev/holder"
)

const (
	// stateRoot holds a directory for each mounted target.
	stateRoot = "/run/reprise-mount"
	// lookInterval is how often a mount is looked at that somebody else may
	// have unmounted, and how often unmounting a busy one is tried.
	lookInterval = time.Second
)

var errGivenUp = errors.New("given up")

// Config says what to mount where.
type Config struct {
	Device device.Device
	// ID names the content of the device. An earlier mount of the same ID
	// on the same target is taken over.
	ID string
	// Target is an existing directory, absolute and without symbolic links.
	Target string

	// Mounted is told when the device is mounted. Optional.
	Mounted func(fusedev.MountInfo)
	// Busy is told, once, that the target cannot be unmounted yet. Optional.
	Busy func(error)
	// Stats is given a function that returns what the kernel read. Optional.
	Stats func(func() fusedev.DeviceStats)
	// GiveUp ends the waiting for a busy target: whoever still uses it gets
	// I/O errors from then on. Optional.
	GiveUp <-chan os.Signal
}

func (c Config) withDefaults() Config {
	if c.Mounted == nil {
		c.Mounted = func(fusedev.MountInfo) {}
	}
	if c.Busy == nil {
		c.Busy = func(error) {}
	}
	if c.Stats == nil {
		c.Stats = func(func() fusedev.DeviceStats) {}
	}
	return c
}

// dirs returns the directory of target and those of the device server in it.
func dirs(target string) (dir string, cfg fusedev.Config) {
	sum := sha256.Sum256([]byte(target))
	dir = filepath.Join(stateRoot, hex.EncodeToString(sum[:8]))
	return dir, fusedev.Config{StateDir: filepath.Join(dir, "state"), RuntimeDir: filepath.Join(dir, "run")}
}

// Run mounts the device and serves it until ctx ends or somebody unmounts the
// target, and then cleans up.
func Run(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	dir, fcfg := dirs(cfg.Target)
	s, err := fusedev.Open(ctx, fcfg)
	if err != nil {
		return err
	}
	m := mounting{cfg: cfg, server: s, ended: make(chan struct{})}
	// Serving must go on while the target is being unmounted.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var g errgroup.Group
	g.Go(func() error {
		defer close(m.ended)
		return s.Run(serving)
	})
	err = m.run(ctx)
	if err != nil {
		stop()
	}
	err = errors.Join(err, g.Wait())
	if m.abandoned {
		// Only now: a server that runs replaces its holder.
		err = errors.Join(err, holder.Stop(context.WithoutCancel(ctx), filepath.Join(fcfg.RuntimeDir, "holder.sock")))
	}
	err = errors.Join(err, s.Close())
	if m.abandoned {
		e := bury(context.WithoutCancel(ctx), fcfg)
		err, m.clean = errors.Join(err, e), e == nil
	}
	if m.clean {
		err = errors.Join(err, os.RemoveAll(dir))
		_ = os.Remove(stateRoot) // unless there are other mounts
	}
	return err
}

// bury detaches the mounts that were cut off. Opening a server does that with
// whatever it finds dead.
func bury(ctx context.Context, cfg fusedev.Config) error {
	s, err := fusedev.Open(ctx, cfg)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(func() error { return s.Run(ctx) })
	err = s.Shutdown(ctx)
	return errors.Join(err, g.Wait(), s.Close())
}

// mounting is a mount in progress.
type mounting struct {
	cfg    Config
	server *fusedev.Server
	ended  chan struct{} // closed when the server no longer serves

	clean     bool // nothing is mounted any more
	abandoned bool // the target is busy and will be cut off
}

func (m *mounting) run(ctx context.Context) error {
	if err := m.attach(ctx); err != nil {
		// Somebody may use the mount already.
		return errors.Join(err, m.detach(context.WithoutCancel(ctx)))
	}
	m.cfg.Stats(m.stats)
	if err := m.wait(ctx); err != nil {
		return err
	}
	return m.detach(context.WithoutCancel(ctx))
}

// attach mounts the device and gets rid of what an earlier command left on
// the target, unless it is the same.
func (m *mounting) attach(ctx context.Context) error {
	s := m.server
	if err := s.Add(ctx, m.cfg.ID, m.cfg.Device); err != nil {
		return err
	}
	s.Ready()
	old, err := s.Mounts()
	if err != nil {
		return err
	}
	for _, o := range old {
		if o.ID == m.cfg.ID {
			continue
		}
		if err := s.Unmount(ctx, o.Target); err != nil {
			return fmt.Errorf("another image is mounted: %w", err)
		}
	}
	for _, id := range s.Known() {
		if id == m.cfg.ID {
			continue
		}
		if err := s.Remove(ctx, id); err != nil {
			return err
		}
	}
	if err := s.Mount(ctx, m.cfg.ID, fusedev.Mount{Target: m.cfg.Target}); err != nil {
		return err
	}
	info, err := m.find()
	if err == nil && info == nil {
		err = fmt.Errorf("%s was unmounted at once", m.cfg.Target)
	}
	if err != nil {
		return err
	}
	m.cfg.Mounted(*info)
	return nil
}

// find returns the mount, or nil if there is none.
func (m *mounting) find() (*fusedev.MountInfo, error) {
	mounts, err := m.server.Mounts()
	for _, i := range mounts {
		if i.ID == m.cfg.ID && i.Target == m.cfg.Target {
			return &i, err
		}
	}
	return nil, err
}

func (m *mounting) stats() fusedev.DeviceStats {
	for _, s := range m.server.Stats() {
		if s.ID == m.cfg.ID {
			return s
		}
	}
	return fusedev.DeviceStats{}
}

// wait returns when ctx ends or the target is no longer mounted.
func (m *mounting) wait(ctx context.Context) error {
	t := time.NewTicker(lookInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.ended:
			return errors.New("serving the mount ended")
		case <-t.C:
			if info, err := m.find(); err != nil || info == nil {
				return err
			}
		}
	}
}

func (m *mounting) shutdown(ctx context.Context) error {
	err := m.server.Shutdown(ctx)
	m.clean = err == nil
	return err
}

// detach unmounts the target as soon as it is not busy, unless told to give up.
func (m *mounting) detach(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var g sync.WaitGroup
	g.Go(func() {
		select {
		case <-m.cfg.GiveUp:
			cancel(errGivenUp)
		case <-ctx.Done():
		}
	})
	defer g.Wait()
	defer cancel(nil)
	t := time.NewTicker(lookInterval)
	defer t.Stop()
	for told := false; ; {
		err := m.shutdown(ctx)
		if errors.Is(context.Cause(ctx), errGivenUp) && !m.clean {
			m.abandoned = true
			return fmt.Errorf("%s was still in use: its users get I/O errors from now on", m.cfg.Target)
		}
		if !errors.Is(err, fusedev.ErrBusy) {
			return err
		}
		if !told {
			told = true
			m.cfg.Busy(err)
		}
		select {
		case <-ctx.Done():
		case <-m.ended:
			return errors.New("serving the mount ended")
		case <-t.C:
		}
	}
}
