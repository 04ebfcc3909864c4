package cache_test

import (
	"testing"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

// TestTransient: a read that is transient is served what is held, and leaves
// nothing behind.
func TestTransient(t *testing.T) {
	data := cachetest.Random(20_000, 1)
	c := openCache(t, cache.Config{Dir: t.TempDir()})
	defer c.Close()
	b := c.Blob(blobtest.Bytes(data))
	must(t, cachetest.Check(t.Context(), b, data, 5000, 1000))
	must(t, cachetest.Check(blob.WithTransient(t.Context()), b, data, 0, len(data)))
	must(t, c.Sync(t.Context()))
	if !blob.Present(b, 5000, 1000) || blob.Present(b, 0, 1) || blob.Present(b, 6000, 1) {
		t.Error("what a transient read fetched is held, or what another fetched is not")
	}
	if s := c.Stats(); s.BytesFetched != int64(len(data)) {
		t.Errorf("%d bytes were fetched, want each of %d once", s.BytesFetched, len(data))
	}
}
