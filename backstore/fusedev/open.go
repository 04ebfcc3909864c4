package fusedev

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/reprise-containers/reprise/backstore/fusedev/channel"
	"github.com/reprise-containers/reprise/backstore/fusedev/holder"
	"github.com/reprise-containers/reprise/backstore/fusedev/kernel"
	"github.com/reprise-containers/reprise/backstore/fusedev/mounter"
)

// Open prepares a Server: it keeps other daemons out, takes the FUSE file
// system over from the last one if its holder still has it, and mounts a new
// one otherwise, after cleaning up what is left of the old one. Requests are
// answered from Run on. The calling daemon needs root.
func Open(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("checking the device server's configuration: %w", err)
	}
	cfg = cfg.withDefaults()
	for _, dir := range []string{cfg.StateDir, cfg.deviceDir(), cfg.RuntimeDir, cfg.jobDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("creating the device server's directories: %w", err)
		}
	}
	lock, err := lockState(ctx, cfg.StateDir)
	if err != nil {
		return nil, fmt.Errorf("locking the device server's state: %w", err)
	}
	s := &Server{
		cfg:     cfg,
		lock:    lock,
		table:   newTable(),
		mounter: mounter.New(cfg.command(mountArgument), cfg.jobDir(), cfg.fuseDir()),
	}
	if err := s.connect(ctx); err != nil {
		lock.Close()
		return nil, err
	}
	return s, nil
}

// connect gets the descriptor from a holder, which is started first if there
// is none with a living connection.
func (s *Server) connect(ctx context.Context) error {
	c, f, message, err := holder.Connect(ctx, s.cfg.socket())
	if err == nil && !channel.Alive(f) {
		c.Close()
		f.Close()
		err = holder.Stop(ctx, s.cfg.socket())
		if err == nil {
			err = holder.ErrNone
		}
	}
	if errors.Is(err, holder.ErrNone) {
		if err := s.startAnew(ctx); err != nil {
			return err
		}
		c, f, message, err = holder.Connect(ctx, s.cfg.socket())
	}
	if err != nil {
		return err
	}
	defer f.Close() // the channel has a copy
	records, err := loadRecords(s.cfg.deviceDir())
	if err == nil {
		for id, r := range records {
			s.table.insert(newEntry(id, r, s.slotBytes()))
		}
		s.channel, err = channel.Open(f, message, newNames(s.table))
	}
	if err == nil {
		for _, e := range s.table.all() {
			s.channel.Expect(e.writers())
		}
	}
	if err != nil {
		c.Close()
		return fmt.Errorf("restoring the device server's state: %w", err)
	}
	s.holder = c
	return nil
}

// startAnew mounts a new FUSE file system and starts a holder for it. Until
// the holder runs, the end of this process ends the file system too.
func (s *Server) startAnew(ctx context.Context) error {
	if err := s.cleanUp(ctx); err != nil {
		return err
	}
	f, message, err := channel.Mount(s.cfg.fuseDir())
	if err != nil {
		return err
	}
	// The holder is asked for a descriptor of its own, as by a successor.
	defer f.Close()
	return s.startHolder(f, message)
}

// startHolder starts a holder process for f.
func (s *Server) startHolder(f *os.File, message []byte) error {
	cmd, err := holder.Start(s.cfg.command(holderArgument), s.cfg.socket(), f, message)
	if err != nil {
		return err
	}
	s.reaper.Go(func() { _ = cmd.Wait() })
	return nil
}

// cleanUp detaches what is left of a FUSE file system whose descriptor is
// lost: mounts that can only return errors, loop devices, and the file system
// itself.
func (s *Server) cleanUp(ctx context.Context) error {
	mounts, err := kernel.FileMounts(s.cfg.fuseDir())
	if err != nil {
		return err
	}
	var dead []string
	for _, ms := range mounts {
		for _, m := range ms {
			dead = append(dead, m.Target)
		}
	}
	stale, err := kernel.MountsAt(s.cfg.fuseDir())
	if err != nil {
		return err
	}
	for _, m := range stale {
		if m.FSType == channel.FSType {
			dead = append(dead, m.Target)
		}
	}
	// Before the file system is detached, which changes their files' names.
	if err := s.unloop(ctx, true, func(_, _ string) bool { return true }); err != nil {
		return err
	}
	if len(dead) > 0 {
		if err := s.mounter.Detach(ctx, dead); err != nil {
			return err
		}
	}
	if err := clearRecords(s.cfg.deviceDir()); err != nil {
		return fmt.Errorf("forgetting devices of an earlier file system: %w", err)
	}
	// Only now: a dead mount point answers no question.
	if err := os.MkdirAll(s.cfg.fuseDir(), 0o700); err != nil {
		return fmt.Errorf("creating the FUSE mount point: %w", err)
	}
	return nil
}
