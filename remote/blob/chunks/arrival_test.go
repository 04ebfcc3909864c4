package chunks_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
)

// unreliable is a source that answers one read by its script.
type unreliable struct {
	blob.Blob
	next func(o *blob.Origins, p []byte, off int64) (int, error)
}

func (u *unreliable) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if next := u.next; next != nil {
		u.next = nil
		return next(blob.OriginsOf(ctx), p, off)
	}
	return u.Blob.ReadAt(ctx, p, off)
}

// TestVerifyUnreliableReports has a source report what is not so. Whatever was
// hashed on its word, no wrong byte is returned. synctest.Wait lets the reader
// hash everything that was reported.
func TestVerifyUnreliableReports(t *testing.T) {
	data := random(600_000)
	table, ref := detached(t, data, 2000, 0)
	const off, size = 100_001, 300_000
	right := data[off : off+size]
	fill := func(p []byte, off int64) int { return copy(p, data[off:]) }
	for _, c := range []struct {
		name string
		next func(o *blob.Origins, p []byte, off int64) (int, error)
		want int // bytes, at least
	}{
		{"nothing returned of what was reported", func(o *blob.Origins, p []byte, off int64) (int, error) {
			o.Served(off, fill(p, off), "a")
			synctest.Wait()
			return 0, errFlaky
		}, 0},
		{"less returned than was reported", func(o *blob.Origins, p []byte, off int64) (int, error) {
			o.Served(off, fill(p, off), "a")
			synctest.Wait()
			clear(p[size/2:])
			return size / 2, errFlaky
		}, size/2 - 4000},
		{"written again and reported again", func(o *blob.Origins, p []byte, off int64) (int, error) {
			o.Served(off, fill(p, off), "a")
			synctest.Wait()
			clear(p)
			o.Served(off, len(p), "b")
			return len(p), nil
		}, size},
		{"written again from another start", func(o *blob.Origins, p []byte, off int64) (int, error) {
			o.Served(off, fill(p, off), "a")
			synctest.Wait()
			clear(p[5000:6000])
			o.Served(off+5000, 1000, "b")
			return len(p), nil
		}, size},
		{"reported before its start", func(o *blob.Origins, p []byte, off int64) (int, error) {
			o.Served(off-10, fill(p, off), "a")
			synctest.Wait()
			return len(p), nil
		}, size},
		{"reported past its end", func(o *blob.Origins, p []byte, off int64) (int, error) {
			o.Served(off, fill(p, off)+1, "a")
			synctest.Wait()
			return len(p), nil
		}, size},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				below := &unreliable{Blob: blobtest.Bytes(data)}
				v := chunks.Verify(below, ref, blobtest.Bytes(table), nil)
				if _, err := v.ReadAt(t.Context(), make([]byte, len(data)), 0); err != nil {
					t.Fatal(err) // now it has all pages
				}
				below.next = c.next
				p := make([]byte, size)
				n, err := v.ReadAt(t.Context(), p, off)
				if n < c.want || n < size && !errors.Is(err, errFlaky) {
					t.Errorf("%d bytes, %v", n, err)
				}
				if !bytes.Equal(p[:n], right[:n]) || !bytes.Equal(p[n:], make([]byte, size-n)) {
					t.Error("returned what was not verified")
				}
			})
		})
	}
}
