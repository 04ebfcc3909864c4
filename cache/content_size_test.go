package cache_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/reprise-containers/reprise/cache"
)

// TestContentWrongSize: whoever holds a blob with a size that is not its own, and
// stored nothing of it, does not keep those out who know it. Who has stored something
// does.
func TestContentWrongSize(t *testing.T) {
	c := wholeBlobs(t, cache.Config{})
	data, desc := blobOf(10_000, 1)
	wrong := desc
	wrong.Size = 1 << 40
	liar := hold(t, c, "hub", wrong)
	defer liar.Release()
	x := hold(t, c, "hub", desc)
	defer x.Release()
	if err := x.Store(t.Context(), data, 0); err != nil {
		t.Fatal(err)
	}
	if err := liar.Store(t.Context(), []byte("lie"), 0); err == nil {
		t.Error("the one who was pushed aside stores")
	}
	if got, err := readAll(x); err != nil || !bytes.Equal(got, data) {
		t.Error(err)
	}
	if y, err := c.Hold("hub", wrong); err == nil {
		y.Release()
		t.Error("held with another size than what is there has")
	}
}

// TestContentTooLarge: a blob that is larger than the cache does not drive out all
// that others have there. Some of it is kept, as for a start that reads parts.
func TestContentTooLarge(t *testing.T) {
	const limit = 4 << 20
	c := wholeBlobs(t, cache.Config{MaxBytes: limit, Policy: "lru"})
	small, desc := blobOf(1<<20, 1)
	x := hold(t, c, "hub", desc)
	if err := x.Store(t.Context(), small, 0); err != nil {
		t.Fatal(err)
	}
	x.Release()
	large, desc2 := blobOf(limit+1, 2)
	y := hold(t, c, "hub", desc2)
	defer y.Release()
	if err := y.Store(t.Context(), large, 0); !errors.Is(err, cache.ErrNotStored) {
		t.Errorf("stored: %v", err)
	}
	if held, until := y.Extent(0, desc2.Size); !held || until < limit/4 {
		t.Errorf("held: %v up to %d", held, until)
	}
	z, ok := c.Find("hub", desc.Digest)
	if !ok {
		t.Fatal("what was there was evicted")
	}
	z.Release()
}
