package zfile_test

import (
	"testing"

	"github.com/reprise-containers/reprise/backstore/zfile"
)

func TestRawCRC(t *testing.T) {
	for _, c := range []struct {
		seed uint32
		data string
		want uint32
	}{
		{0, "123456789", 0x58E3FA20},
		{100007, "123456789", 0x3C9BD4E0},
		{0, "\x00\x00\x00\x00\x00", 0},
		{0, "", 0},
	} {
		if got := zfile.RawCRC(c.seed, []byte(c.data)); got != c.want {
			t.Errorf("raw(%d, %q) is %#x, want %#x", c.seed, c.data, got, c.want)
		}
	}
}
