package redistest

import (
	"context"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cachetest/testbed"
)

// patience is how long a start may take on a machine that does much else.
const patience = 2 * time.Minute

// Start returns a server that runs for the time of a test, which ends where there
// is no redis-server, see testbed.Missing. args are more of its configuration.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	p := Need(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var s *Server
	err := retry(func() (err error) {
		if s, err = New(p, Config{Dir: t.TempDir(), Args: args}); err != nil {
			return err
		}
		t.Cleanup(s.Kill)
		return s.Start(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// StartCluster returns a cluster that runs for the time of a test, which is skipped where
// there is no redis-server.
func StartCluster(t testing.TB, args ...string) *Cluster {
	t.Helper()
	p := Need(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var c *Cluster
	err := retry(func() (err error) {
		if c, err = NewCluster(p, Config{Dir: t.TempDir(), Args: args}); err != nil {
			return err
		}
		t.Cleanup(c.Kill)
		return c.Start(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Need returns the program; without one the test ends.
func Need(t testing.TB) Program {
	t.Helper()
	p, err := Find()
	if err != nil {
		testbed.Missing(t, "redis-server", err)
	}
	return p
}

// retry tries a second time: a port that was free may be taken by the time it is used.
func retry(start func() error) error {
	err := start()
	for range 2 {
		if err != nil {
			err = start()
		}
	}
	return err
}
