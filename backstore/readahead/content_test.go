package readahead_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/device/devicetest"
	"github.com/reprise-containers/reprise/backstore/readahead"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

func TestConforms(t *testing.T) {
	devicetest.Run(t, func(_ *testing.T, contents []byte) device.Device {
		return readahead.New(blobtest.Bytes(contents), readahead.DefaultConfig)
	})
}

// cold is a device of which nothing is local, so that reads are made longer.
type cold struct {
	blob.Blob
	longest int
}

func (c *cold) Present(off, n int64) bool { return false }

func (c *cold) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	c.longest = max(c.longest, len(p))
	return c.Blob.ReadAt(ctx, p, off)
}

// TestContent reads sequentially, up to the end, in steps of all sizes: reads
// that are made longer deliver what lies where they began.
func TestContent(t *testing.T) {
	contents := make([]byte, 300<<10)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range contents {
		contents[i] = byte(rnd.Uint32())
	}
	below := &cold{Blob: blobtest.Bytes(contents)}
	d := readahead.New(below, readahead.DefaultConfig)
	for range 20 {
		for off := rnd.IntN(20) * 512; off < len(contents); {
			p := make([]byte, min((1+rnd.IntN(16))*512, len(contents)-off))
			if n, err := d.ReadAt(t.Context(), p, int64(off)); n != len(p) || err != nil {
				t.Fatalf("reading %d bytes at %d: %d, %v", len(p), off, n, err)
			}
			if !bytes.Equal(p, contents[off:off+len(p)]) {
				t.Fatalf("reading %d bytes at %d: other bytes", len(p), off)
			}
			off += len(p)
		}
	}
	if below.longest <= 16*512 {
		t.Error("no read was made longer: the test shows nothing")
	}
}
