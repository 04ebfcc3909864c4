package cache_test

import (
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

// TestOrigins has two origins that answer with different bytes under one
// digest: one lies, and only those who ask it may be served its bytes, also
// after a restart.
func TestOrigins(t *testing.T) {
	good, evil := cachetest.Random(20_000, 1), cachetest.Random(20_000, 2)
	d := digest.FromBytes(good)
	dir := t.TempDir()
	for round := range 2 {
		c := openCache(t, cache.Config{Dir: dir})
		fromEvil := c.BlobFrom("evil.example", resized{blobtest.Bytes(evil), d})
		fromGood := c.BlobFrom("good.example", resized{blobtest.Bytes(good), d})
		must(t, cachetest.Check(t.Context(), fromEvil, evil, 0, len(evil)))
		if round == 0 && blob.Present(fromGood, 0, 1) {
			t.Error("what one origin answered is held for another")
		}
		must(t, cachetest.Check(t.Context(), fromGood, good, 0, len(good)))
		must(t, c.Sync(t.Context()))
		s := c.Stats()
		if s.Blobs != 2 || s.Forgotten != 0 || round == 1 && s.Misses != 0 {
			t.Errorf("round %d: %+v", round, s)
		}
		if n := c.BlobBytes(d); n < 2*20_000 || n > s.Bytes {
			t.Errorf("blob takes %d of %d bytes", n, s.Bytes)
		}
		must(t, c.Close())
	}
}
