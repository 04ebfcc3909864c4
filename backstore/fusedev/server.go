package fusedev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/backstore/fusedev/channel"
	"github.com/reprise-containers/reprise/backstore/fusedev/holder"
	"github.com/reprise-containers/reprise/backstore/fusedev/mounter"
)

// holderRetry is the time between attempts to start a holder.
const holderRetry = 2 * time.Second

// errTornDown ends Run after Shutdown.
var errTornDown = errors.New("shut down")

// Server serves devices to the kernel. Its methods may be called concurrently,
// and those that mount need Run to be running.
type Server struct {
	cfg     Config
	lock    *os.File
	channel *channel.Channel
	table   *table
	mounter *mounter.Runner
	buffers buffers
	ready   atomic.Bool
	down    atomic.Bool // Shutdown has begun

	reaper sync.WaitGroup // waits for holders

	mu     sync.Mutex // protects what follows
	holder *holder.Client
	closed bool
}

// Run answers the kernel until ctx ends and then returns nil, leaving all
// mounts alive: their reads wait for the next daemon. It returns an error that
// wraps channel.ErrAborted if somebody unmounted the FUSE file system. It can
// be called once.
func (s *Server) Run(ctx context.Context) error {
	if s.channel.CanResend() {
		if err := s.channel.Resend(); err != nil {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := s.channel.Serve(gctx, s.cfg.DrainTimeout, s.request)
		if err != nil && s.down.Load() {
			return errTornDown
		}
		return err
	})
	g.Go(func() error { return s.keepHolder(gctx) })
	err := g.Wait()
	if errors.Is(err, errTornDown) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("serving devices: %w", err)
	}
	return nil
}

// keepHolder replaces the holder whenever it ends, until ctx does.
func (s *Server) keepHolder(ctx context.Context) error {
	for {
		if c := s.currentHolder(); c != nil {
			if err := c.Wait(ctx); ctx.Err() != nil {
				return nil
			} else if err != nil {
				s.holderLost(err)
			}
		}
		if s.down.Load() {
			return nil
		}
		err := s.replaceHolder(ctx)
		if ctx.Err() != nil {
			return nil
		}
		s.holderLost(err)
		if err == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(holderRetry):
		}
	}
}

// replaceHolder starts a new holder with this process's descriptor.
func (s *Server) replaceHolder(ctx context.Context) error {
	s.setHolder(nil)
	own, err := s.channel.File()
	if err != nil {
		return err
	}
	defer own.Close()
	if err := s.startHolder(own, s.channel.InitMessage()); err != nil {
		return err
	}
	c, f, _, err := holder.Connect(ctx, s.cfg.socket())
	if err != nil {
		return err
	}
	f.Close() // the one in use is as good
	s.setHolder(c)
	return nil
}

func (s *Server) holderLost(err error) {
	if s.cfg.Observer != nil {
		s.cfg.Observer.HolderLost(err)
	}
}

func (s *Server) currentHolder() *holder.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holder
}

// setHolder closes the connection to the last holder and replaces it.
func (s *Server) setHolder(c *holder.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder != nil {
		s.holder.Close()
	}
	s.holder = c
}

// HolderPID returns the process ID of the holder, 0 while there is none.
func (s *Server) HolderPID() int {
	if c := s.currentHolder(); c != nil {
		return c.PID()
	}
	return 0
}

// Ready says that all devices of earlier daemons that will be added again have
// been: reads of the others fail from now on, with ENXIO for those who see the
// FUSE file itself and EIO for all others.
func (s *Server) Ready() {
	s.ready.Store(true)
	for _, e := range s.table.all() {
		e.giveUp()
	}
}

// Close releases the lock and this process's descriptor, after Run returned.
// The holder and all mounts stay.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.holder != nil {
		s.holder.Close()
		s.holder = nil
	}
	// The lock last: whoever gets it finds the descriptor unused.
	return errors.Join(s.channel.Close(), s.lock.Close())
}
