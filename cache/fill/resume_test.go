package fill_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/fill"
)

// TestResumeBehindLie has a client read the rest of a blob of which another one is
// being lied to: it gets no complete rest of it, though it asked for a range.
func TestResumeBehindLie(t *testing.T) {
	data := random(4<<20, 40)
	lie := slices.Clone(data)
	lie[100] ^= 1
	r := newRig(t, quick, cache.Config{})
	up := newUpstream(lie)
	gate := make(chan struct{})
	up.hook = func(ctx context.Context, o *openedBody) error {
		if o.pos < 3<<20 {
			return nil
		}
		select {
		case <-gate:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	var group errgroup.Group
	group.Go(func() error {
		got, err := r.read(t.Context(), describe(data), lie, up.by("whole"), 0, int64(len(data)))
		if !errors.Is(err, fill.ErrMismatch) || got > int64(len(data))-64<<10 {
			return fmt.Errorf("the whole: %d bytes, %v", got, err)
		}
		return nil
	})
	const clients, off = 5, 1 << 20
	// Who asked for a part before the front of the blob is there gets it as it is.
	x := r.hold(describe(data))
	for held, until := x.Extent(0, off); !held || until < off; held, until = x.Extent(0, off) {
		time.Sleep(time.Millisecond)
	}
	x.Release()
	var begun sync.WaitGroup
	begun.Add(clients)
	for i := range clients {
		group.Go(func() error {
			rd, done := r.reader(t.Context(), describe(data), up.by(fmt.Sprint(i)), off, int64(len(data))-off)
			defer done()
			_, err := rd.Read(make([]byte, 1000))
			begun.Done()
			if err != nil {
				return err
			}
			n, err := rd.WriteTo(discard{})
			if !errors.Is(err, fill.ErrMismatch) || n >= int64(len(data))-off-1000 {
				return fmt.Errorf("the rest: %d bytes, %v", n, err)
			}
			return nil
		})
	}
	begun.Wait()
	close(gate)
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	r.unverified(describe(data))
}

// discard is io.Discard without its ReadFrom.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
