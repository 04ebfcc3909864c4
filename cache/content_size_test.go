package cache_test

import (
	"bytes"
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
