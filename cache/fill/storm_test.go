package fill_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/fill"
	"github.com/reprise-containers/reprise/remote/blob"
)

// TestStorm has everything happen at once: readers of all kinds, some of whom leave
// or are refused, answers that break, blobs that are removed or evicted, and one
// upstream that lies. Nobody gets a wrong byte, and everyone who may is served.
func TestStorm(t *testing.T) {
	const blobs, readers, turns = 6, 16, 40
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			config := quick
			config.Complete = seed%2 == 0
			config.Attempts = 20
			config.JoinAhead = 300_000
			disk := cache.Config{CheckpointEvery: 20 * time.Millisecond}
			if seed >= 2 {
				disk.MaxBytes = 6 << 20 // of about 9
			}
			r := newRig(t, config, disk)
			s := &storm{r: r}
			for i := range blobs {
				data := random(200_000+300_000*i, 1000*seed+uint64(i))
				up := newUpstream(data)
				up.hook = s.fault
				s.data, s.ups = append(s.data, data), append(s.ups, up)
			}
			files := openFiles(t)
			var group errgroup.Group
			for i := range readers {
				dice := rand.New(rand.NewPCG(seed, uint64(i)))
				group.Go(func() error {
					for range turns {
						if err := s.turn(t.Context(), dice); err != nil {
							return err
						}
					}
					return nil
				})
			}
			if err := group.Wait(); err != nil {
				t.Error(err)
			}
			r.stop()
			for i, up := range s.ups {
				t.Logf("blob %d: %d of %d bytes in %d requests", i, up.bytes(), len(s.data[i]), len(up.requests()))
			}
			t.Logf("%+v", r.group.Stats())
			// The cache keeps some files open itself.
			if n := openFiles(t); n > files+2*blobs {
				t.Errorf("%d files are open, %d were", n, files)
			}
		})
	}
}

type storm struct {
	r    *rig
	data [][]byte
	ups  []*upstream
	seq  atomic.Uint64
}

// fault breaks some answers.
func (s *storm) fault(ctx context.Context, _ *openedBody) error {
	switch n := s.seq.Add(1); {
	case n%41 == 0:
		return errCut
	case n%17 == 0:
		time.Sleep(time.Millisecond)
	}
	return ctx.Err()
}

var errDenied = blob.Permanent(errors.New("denied"))

func (s *storm) turn(ctx context.Context, dice *rand.Rand) error {
	k := dice.IntN(len(s.data))
	data, src := s.data[k], s.ups[k].by("a")
	size := int64(len(data))
	off, n := int64(0), size
	if dice.IntN(3) > 0 {
		off = dice.Int64N(size)
		n = 1 + dice.Int64N(min(size-off, 200_000))
	}
	switch dice.IntN(12) {
	case 0: // leaves
		ctx, cancel := context.WithTimeout(ctx, time.Duration(dice.IntN(5))*time.Millisecond)
		defer cancel()
		if err := s.r.check(ctx, data, src, off, n); err != nil && ctx.Err() == nil {
			return err
		}
		return nil
	case 1: // is refused, if it has to ask
		src.fails = func(int64, int64) error { return errDenied }
		if err := s.r.check(ctx, data, src, off, n); err != nil && !errors.Is(err, errDenied) {
			return err
		}
		return nil
	case 2: // is removed
		all := s.r.cache.Blobs()
		if len(all) > 0 {
			_, err := s.r.cache.Remove(all[dice.IntN(len(all))].Key)
			return err
		}
		return nil
	case 3: // is warmed
		x := s.r.hold(describe(data))
		defer x.Release()
		err := s.r.group.Want(x, src, fill.Wanted{Extents: []fill.Extent{{Off: off, End: off + n}}})
		if errors.Is(err, fill.ErrBusy) {
			err = nil
		}
		return err
	}
	return s.r.check(ctx, data, src, off, n)
}

func openFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, fd := range names {
		// The cache keeps its folders open, and those are at most 256 and a few.
		if info, err := os.Stat("/proc/self/fd/" + fd.Name()); err == nil && !info.IsDir() {
			files++
		}
	}
	return files
}
