package cache_test

import (
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/cache/internal/disk/disktest"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

// TestLostWhileCheckpointing has a blob lose its files while their map is being
// replaced, and start anew in a file that gets the inode number of the old one.
// The map of the old file must not end up beside the new one.
func TestLostWhileCheckpointing(t *testing.T) {
	files := disktest.New(1 << 40)
	var held, cut, lost atomic.Bool
	var crashed *disktest.FS
	renaming, stored := make(chan struct{}), make(chan struct{})
	files.Fault = func(op disktest.Op) error {
		replacing := op.Kind == "Rename" && strings.HasSuffix(op.Name, ".map.tmp")
		switch {
		case replacing && held.CompareAndSwap(false, true):
			close(renaming)
			select {
			case <-stored: // that is too early
			case <-time.After(1500 * time.Millisecond): // the error made storing pause for a second
			}
		case replacing && crashed == nil:
			crashed = files.Kill() // all of the new file is there but its map
		case op.Kind == "ReadAt" && cut.Load():
			return io.EOF
		case op.Kind == "Stat" && lost.CompareAndSwap(true, false):
			close(stored) // the new file is made, and about to be written to
		}
		return nil
	}
	c := openOn(t, cache.Config{}, files)
	data := cachetest.Random(1<<20, 1)
	b := c.Blob(blobtest.Bytes(data))
	must(t, cachetest.Check(t.Context(), b, data, 0, 64<<10))
	synced := make(chan error)
	go func() { synced <- c.Sync(t.Context()) }()
	<-renaming
	cut.Store(true)
	must(t, cachetest.Check(t.Context(), b, data, 0, 4096)) // notices
	cut.Store(false)
	if c.Stats().Forgotten != 1 {
		t.Fatal("the loss was not noticed: the test shows nothing")
	}
	lost.Store(true)
	for anew := false; !anew; {
		must(t, cachetest.Check(t.Context(), b, data, 512<<10, 4096))
		select {
		case <-stored:
			anew = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	must(t, <-synced)
	must(t, c.Sync(t.Context()))

	after := openOn(t, cache.Config{}, crashed)
	must(t, cachetest.Check(t.Context(), after.Blob(blobtest.Bytes(data)), data, 0, len(data)))
}
