package fusedev_test

import (
	"context"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/backstore/fusedev/holder"
)

// waitFor waits until done returns true, and fails the test if that takes
// longer than any machine needs.
func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for range 3000 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no %s after 30 s", what)
}

// holderPID returns the process ID of the site's holder, 0 if there is none.
func holderPID(t testing.TB, s *site) int {
	t.Helper()
	c, f, _, err := holder.Connect(context.Background(), s.cfg.RuntimeDir+"/holder.sock")
	if err != nil {
		return 0
	}
	defer c.Close()
	f.Close()
	return c.PID()
}
