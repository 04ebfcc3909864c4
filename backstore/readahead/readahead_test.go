package readahead_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/reprise-containers/reprise/backstore/readahead"
	"github.com/reprise-containers/reprise/remote/blob"
)

// zeros is a device of zeros that keeps a list of its reads.
type zeros struct {
	size int64
	fail error

	mu         sync.Mutex
	background []int64 // start and end of each background read
	demand     int64   // bytes
}

func (z *zeros) Size() int64 { return z.size }

func (z *zeros) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if blob.PriorityOf(ctx) == blob.Demand {
		z.demand += int64(len(p))
		return len(p), nil
	}
	z.background = append(z.background, off, off+int64(len(p)))
	return len(p), z.fail
}

func (z *zeros) ahead() (n int64) {
	for i := 0; i < len(z.background); i += 2 {
		n += z.background[i+1] - z.background[i]
	}
	return n
}

// watch runs reads against a device with readahead over z.
func watch(t *testing.T, z *zeros, cfg readahead.Config, reads func(read func(off, n int64))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := readahead.New(z, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := d.Run(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("Run = %v, want context.Canceled", err)
			}
		})
		reads(func(off, n int64) {
			if _, err := d.ReadAt(t.Context(), make([]byte, n), off); err != nil {
				t.Errorf("ReadAt(%d, %d) = %v", off, n, err)
			}
			synctest.Wait()
		})
		cancel()
		wg.Wait()
	})
}

var cfg = readahead.Config{Trigger: 64 << 10, Max: 256 << 10}

func TestSequentialStreamIsReadAhead(t *testing.T) {
	z := &zeros{size: 4 << 20}
	const upTo = 2 << 20
	watch(t, z, cfg, func(read func(off, n int64)) {
		for off := int64(0); off < upTo; off += 4096 {
			read(off, 4096)
		}
	})
	last := int64(0)
	for i := 0; i < len(z.background); i += 2 {
		if z.background[i] < last {
			t.Errorf("[%d, %d) is read ahead twice", z.background[i], last)
		}
		last = z.background[i+1]
	}
	if last < upTo {
		t.Errorf("readahead ended at %d, behind the reader at %d", last, upTo)
	}
	if last > upTo+cfg.Max {
		t.Errorf("readahead is at %d, more than %d ahead of %d", last, cfg.Max, upTo)
	}
}

func TestShortAndRandomRunsAreLeftAlone(t *testing.T) {
	z := &zeros{size: 1 << 30}
	rnd := rand.New(rand.NewPCG(1, 2))
	watch(t, z, cfg, func(read func(off, n int64)) {
		for range 200 {
			at := rnd.Int64N(z.size/4096) * 4096
			for i := range int64(8) {
				read(min(at+i*4096, z.size-4096), 4096)
			}
		}
	})
	if z.ahead() != 0 {
		t.Errorf("%d bytes read ahead of runs of 32 KiB, want none below the trigger", z.ahead())
	}
}

func TestParallelStreams(t *testing.T) {
	z := &zeros{size: 1 << 30}
	const readers, each = 8, 1 << 20
	watch(t, z, cfg, func(read func(off, n int64)) {
		for off := int64(0); off < each; off += 4096 {
			for r := range int64(readers) {
				read(r<<24+off, 4096)
			}
		}
	})
	if z.ahead() < readers*each/2 {
		t.Errorf("%d bytes read ahead of %d streams of %d bytes", z.ahead(), readers, each)
	}
}

func TestWasteIsBounded(t *testing.T) {
	z := &zeros{size: 1 << 30}
	const files, each = 64, 128 << 10
	watch(t, z, cfg, func(read func(off, n int64)) {
		for file := range int64(files) {
			for off := int64(0); off < each; off += 4096 {
				read(file<<20+off, 4096)
			}
		}
	})
	var waste int64
	for i := 0; i < len(z.background); i += 2 {
		from, to := z.background[i]%(1<<20), z.background[i+1]%(1<<20)
		waste += max(0, to-max(from, each))
	}
	if waste > z.demand/2 {
		t.Errorf("%d bytes read ahead in vain, %d read", waste, z.demand)
	}
}

func TestEndOfDeviceErrorsAndOff(t *testing.T) {
	whole := func(z *zeros) func(func(off, n int64)) {
		return func(read func(off, n int64)) {
			for off := int64(0); off < z.size; off += 4096 {
				read(off, min(4096, z.size-off))
			}
		}
	}
	z := &zeros{size: 1<<20 + 512}
	watch(t, z, cfg, whole(z))
	for _, at := range z.background {
		if at > z.size {
			t.Errorf("readahead reached %d of a device of %d bytes", at, z.size)
		}
	}
	z = &zeros{size: 1 << 20, fail: errors.New("registry is down")}
	watch(t, z, cfg, whole(z))
	z = &zeros{size: 1 << 20}
	watch(t, z, readahead.Config{}, whole(z))
	if z.ahead() != 0 {
		t.Errorf("%d bytes read ahead though it is off", z.ahead())
	}
}
