package backstore_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
)

// distant is a blob of which each read takes a second.
type distant struct {
	blob.Blob
	mu    sync.Mutex
	reads int
	bytes int
}

func (d *distant) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	d.mu.Lock()
	d.reads++
	d.bytes += len(p)
	d.mu.Unlock()
	time.Sleep(time.Second)
	return d.Blob.ReadAt(ctx, p, off)
}

// TestOpenVerifiedRounds opens layers of several sizes and counts the rounds:
// reads that wait for others. Verification costs bytes, but no round.
func TestOpenVerifiedRounds(t *testing.T) {
	for _, size := range []int{64 << 10, 1 << 20, 24 << 20} {
		rng := rand.New(rand.NewPCG(1, uint64(size)))
		disk := make([]byte, size)
		for i := range disk {
			if i%4096 < 2000 { // about how files compress
				disk[i] = byte(rng.Uint32())
			}
		}
		var layer target
		err := backstore.WriteLayer(&layer, zfile.Options{}, func(w io.Writer) error {
			return lsmt.CommitDisk(t.Context(), w, memory(disk), lsmt.DiskOptions{})
		})
		if err != nil {
			t.Fatal(err)
		}
		data, ref := withChunks(t, bytes.Clone(layer.Bytes()))
		open := func(ref chunks.Ref) (rounds time.Duration, d *distant) {
			synctest.Test(t, func(t *testing.T) {
				d = &distant{Blob: blobtest.Bytes(data)}
				b := chunks.Verify(d, ref, blob.Section(d, ref.Offset, ref.Size), nil)
				start := time.Now()
				if _, err := backstore.OpenLayer(t.Context(), b); err != nil {
					t.Fatal(err)
				}
				rounds = time.Since(start) / time.Second
			})
			return rounds, d
		}
		plain, p := open(chunks.Ref{})
		verified, v := open(ref)
		t.Logf("%d bytes: %d rounds, %d reads, %d bytes; verified %d rounds, %d reads, %d bytes",
			size, plain, p.reads, p.bytes, verified, v.reads, v.bytes)
		if verified > plain {
			t.Errorf("layer of %d bytes: %d rounds to open it, verified %d", size, plain, verified)
		}
	}
}
