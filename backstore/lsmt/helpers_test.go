package lsmt_test

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// memory is a blob in memory that is all present.
type memory []byte

func (m memory) Size() int64               { return int64(len(m)) }
func (m memory) Present(off, n int64) bool { return true }
func (m memory) String() string            { return "memory" }
func (m memory) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}

// parse parses lines of "offset length mapped [zeroed]".
func parse(t testing.TB, text string) []lsmt.Segment {
	t.Helper()
	var segments []lsmt.Segment
	for line := range strings.Lines(text) {
		var s lsmt.Segment
		var zeroed string
		n, err := fmt.Sscan(line, &s.Offset, &s.Length, &s.Mapped, &zeroed)
		if n < 3 || zeroed != "" && zeroed != "zeroed" {
			t.Fatalf("line %q: %v", line, err)
		}
		s.Zeroed = zeroed != ""
		segments = append(segments, s)
	}
	return segments
}

// format is the inverse of parse, with layers if there are several.
func format(segments iter.Seq[lsmt.Segment], layers int) string {
	var b strings.Builder
	for s := range segments {
		fmt.Fprintf(&b, "%d %d %d", s.Offset, s.Length, s.Mapped)
		if s.Zeroed {
			b.WriteString(" zeroed")
		}
		if layers > 1 {
			fmt.Fprintf(&b, " layer %d", s.Layer)
		}
		b.WriteString("\n")
	}
	if b.Len() == 0 {
		return "none\n"
	}
	return b.String()
}

// sectors returns the data of a layer: every sector is filled with its number
// and that of the layer, so that no two are equal.
func sectors(layer, n int) []byte {
	b := make([]byte, 0, n*lsmt.SectorSize)
	for i := range n {
		line := fmt.Sprintf("layer %03d sector %08d ", layer, i+8)
		b = append(b, strings.Repeat(line, lsmt.SectorSize/len(line)+1)[:lsmt.SectorSize]...)
	}
	return b
}
