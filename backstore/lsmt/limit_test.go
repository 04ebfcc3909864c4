package lsmt_test

import (
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// Records may not reach past the last sector that a record can name: cut by
// what lies above it, such a one would get a number that does not fit.
func TestEndOfAddresses(t *testing.T) {
	const last = 1<<50 - 2 // sector; the one after it marks padding
	id := lsmt.Identity{VirtualSize: 1 << 20}
	data := sectors(0, 200)
	for _, c := range []struct {
		offset, length int64
		ok             bool
	}{{last, 1, true}, {last, 2, false}, {last - 99, 100, true}, {last - 99, 101, false}} {
		records := []lsmt.Segment{{Offset: 5, Length: 1, Mapped: 8}, {Offset: c.offset, Length: c.length, Mapped: 8}}
		_, err := lsmt.Open(t.Context(), memory(lsmt.BuildLayer(id, data, records)))
		if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "record 1") {
			t.Errorf("%+v: %v", c, err)
		}
		files := [2]memory{}
		files[0], files[1] = lsmt.BuildLog(id, data, records)
		l, err := lsmt.OpenWritable(t.Context(), files[0], files[1])
		if err != nil || (l.Dropped() == 0) != c.ok {
			t.Errorf("log with %+v: %d records dropped, %v", c, l.Dropped(), err)
		}
	}
}
