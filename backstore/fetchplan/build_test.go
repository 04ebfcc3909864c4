package fetchplan_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/fetchplan"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/tracelayer"
)

func build(t testing.TB, layers []fetchplan.Layer, trace tracelayer.Trace) (*tracelayer.Plan, [][]byte) {
	t.Helper()
	var data bytes.Buffer
	p, skipped, err := fetchplan.Build(t.Context(), layers, trace, &data)
	if err != nil || skipped != 0 {
		t.Fatalf("building: %d skipped, %v", skipped, err)
	}
	return p, arrivals(t, p, data.Bytes())
}

// TestBuild replays the reads on a node that gets one extent after the other, and
// only when a read fails for want of it: nothing is missing at the end, and little
// arrives before there is need of it.
func TestBuild(t *testing.T) {
	for name, layers := range images(t) {
		t.Run(name, func(t *testing.T) {
			trace, reads, sums := record(t, layers, 600)
			p, content := build(t, layers, trace)
			n := newNode(layers)
			next := 0
			arrive := func() bool {
				if next == len(p.Extents) {
					return false
				}
				e := p.Extents[next]
				n.below[e.Layer].put(t, e.Off, content[next])
				next++
				return true
			}
			img, err := backstore.Open(t.Context(), n.tops)
			for errors.Is(err, errMissing) && arrive() {
				img, err = backstore.Open(t.Context(), n.tops)
			}
			if err != nil {
				t.Fatalf("opening with %d of %d extents: %v", next, len(p.Extents), err)
			}
			headers, ahead := next, n.unused() // what makes leaves whole
			for i, rd := range reads {
				buf := make([]byte, rd.n)
				_, err := img.ReadAt(t.Context(), buf, rd.off)
				for errors.Is(err, errMissing) && arrive() {
					_, err = img.ReadAt(t.Context(), buf, rd.off)
				}
				if err != nil {
					t.Fatalf("read %d with %d of %d extents: %v", i, next, len(p.Extents), err)
				}
				if sumOf(t, img, rd) != sums[i] {
					t.Fatalf("read %d is not what it was", i)
				}
				if n := n.unused() - ahead; n > 400<<10 {
					t.Fatalf("read %d: %d bytes arrived and were not needed yet", i, n)
				}
			}
			if rest := len(p.Extents) - next; rest > 2 { // what makes leaves of headers whole
				t.Errorf("%d of %d extents were never needed", rest, len(p.Extents))
			}
			if enc, err := p.Encode(); err != nil {
				t.Error(err)
			} else {
				t.Logf("%d reads, %d extents of %d bytes in a plan of %d, stored in %d; headers are %d extents",
					len(reads), len(p.Extents), p.Size(), len(enc), p.DataSize(), headers)
			}
		})
	}
}

// TestBuildWholeLeaves reads each extent through the chunk table as soon as it is
// there: that takes only what arrived before.
func TestBuildWholeLeaves(t *testing.T) {
	for name, layers := range images(t) {
		t.Run(name, func(t *testing.T) {
			trace, _, _ := record(t, layers, 600)
			p, content := build(t, layers, trace)
			n := newNode(layers)
			for i, e := range p.Extents {
				n.below[e.Layer].put(t, e.Off, content[i])
				got := make([]byte, e.Size)
				if _, err := n.tops[e.Layer].ReadAt(t.Context(), got, e.Off); err != nil || !bytes.Equal(got, content[i]) {
					t.Fatalf("extent %d, %d bytes at %d of layer %d: %v", i, e.Size, e.Off, e.Layer, err)
				}
			}
		})
	}
}

// TestBuildAgain has equal arguments give equal plans and data, and plans without
// data differ in nothing else.
func TestBuildAgain(t *testing.T) {
	layers := converted(t, zfile.ZSTD, 300)
	trace, _, _ := record(t, layers, 400)
	var first []byte
	for range 5 {
		var data bytes.Buffer
		p, _, err := fetchplan.Build(t.Context(), layers, trace, &data)
		if err != nil {
			t.Fatal(err)
		}
		enc, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		all := slices.Concat(enc, data.Bytes())
		if first == nil {
			first = all
		}
		if !bytes.Equal(all, first) {
			t.Error("another plan")
		}
		bare, _, err := fetchplan.Build(t.Context(), layers, trace, nil)
		if err != nil || bare.DataSize() != 0 {
			t.Fatalf("without data: %d bytes of it, %v", bare.DataSize(), err)
		}
		for i := range bare.Extents {
			bare.Extents[i].Stored = p.Extents[i].Stored
		}
		if !slices.Equal(bare.Extents, p.Extents) {
			t.Error("without data, the extents are others")
		}
	}
}
