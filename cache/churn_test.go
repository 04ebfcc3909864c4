package cache_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

// TestChurn has readers, evictions, discards, checkpoints and the opening and
// closing of blobs get into each other's way, and at the end a Close.
func TestChurn(t *testing.T) {
	c := openCache(t, cache.Config{
		MaxBytes:        1 << 20,
		MaxOpen:         1,
		IdleAfter:       time.Nanosecond,
		CheckpointEvery: time.Nanosecond,
		QueueBytes:      256 << 10,
	})
	var blobs []blob.Blob
	var data [][]byte
	for i := range 4 {
		data = append(data, cachetest.Random(1<<20*(i+1)+i*77, uint64(i)))
		blobs = append(blobs, blobtest.Bytes(data[i]))
	}
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	wg.Go(func() {
		for deadline := 0; c.Stats().Evictions < 20 && deadline < 5000; deadline++ {
			if err := cachetest.Hammer(t.Context(), c.Blob(blobs[3]), data[3], 1, 5); err != nil {
				errs <- err
				return
			}
		}
		if err := c.Close(); err != nil {
			errs <- err
		}
	})
	for reader := range 6 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(reader), 4))
			for range rounds {
				i := rng.IntN(len(blobs))
				b := c.Blob(blobs[i])
				if err := cachetest.Hammer(t.Context(), b, data[i], 1, 20); err != nil {
					errs <- err
					return
				}
				switch {
				case rng.IntN(10) == 0:
					off := rng.Int64N(b.Size())
					blob.Discard(b, off, rng.Int64N(b.Size()-off)+1)
				case reader == 1:
					err := c.Sync(t.Context())
					if err != nil && !errors.Is(err, cache.ErrClosed) && !errors.Is(err, context.Canceled) {
						errs <- err
					}
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if s := c.Stats(); s.Evictions == 0 || s.Hits == 0 || s.Bytes > 1<<20 || s.StoreErrors+s.ReadErrors > 0 {
		t.Errorf("%+v", s)
	}
}
