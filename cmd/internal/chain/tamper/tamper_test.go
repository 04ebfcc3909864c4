package tamper_test

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
)

// positions is at how many places a bit is flipped.
const positions = 1200

// region is what a bit of a blob belongs to.
type region int

const (
	covered region = iota // by a leaf
	table
	unread // tar header of the table, end of the archive
)

func (l layer) region(bit int64) region {
	switch at := bit / 8; {
	case at < l.ref.Covered(l.desc.Size):
		return covered
	case at >= l.ref.Offset && at < l.ref.Offset+l.ref.Size:
		return table
	}
	return unread
}

// bits returns random bits of the blob, a quarter of them in the table and its
// surroundings.
func (l layer) bits(n int) []int64 {
	rng := rand.New(rand.NewPCG(uint64(len(l.data)), 3))
	out := make([]int64, n)
	for i := range out {
		from := int64(0)
		if i%4 == 0 {
			from = l.ref.Covered(l.desc.Size)
		}
		out[i] = (from+rng.Int64N(int64(len(l.data))-from))*8 + rng.Int64N(8)
	}
	return out
}

// TestFlippedBits serves a layer with one bit wrong, at many places: no wrong
// byte gets to the reader, or into the cache, and the error names chunk and host.
// With a mirror that serves it right, before or behind, there is no error.
func TestFlippedBits(t *testing.T) {
	for _, a := range []zfile.Algorithm{zfile.LZ4, zfile.ZSTD} {
		l := pack(t, text(256<<10, 1), zfile.Options{Algorithm: a})
		bad, good := newHost(t, l.data), newHost(t, l.data)
		alone, before, behind := newNode(t, bad), newNode(t, good, bad), newNode(t, bad, good)
		for _, bit := range l.bits(positions / 2) {
			bad.set(func(h *host) { h.flip = bit })
			l.checkAlone(t, alone, bad, bit)
			l.checkLater(t, alone, bad)
			bad.set(func(h *host) { h.flip = bit })
			for _, n := range []*node{before, behind} {
				got, err := read(t.Context(), n.open(t, l, l.ref))
				if err != nil || !bytes.Equal(got, l.disk) {
					t.Fatalf("bit %d, with a good host: %v", bit, err)
				}
			}
			if f := before.failures(); len(f) != 0 {
				t.Fatalf("bit %d: failures %v of a good mirror", bit, f)
			}
			f := behind.failures()
			if want := l.region(bit) == covered; want != (f[bad.origin()] > 0) && l.region(bit) != table || len(f) > 1 {
				t.Fatalf("bit %d: failures %v", bit, f)
			}
			l.checkCached(t, behind, bad, good)
		}
	}
}

// checkCached reads l once more after all of it was read: from the cache, as no
// host answers.
func (l layer) checkCached(t *testing.T, n *node, hosts ...*host) {
	t.Helper()
	for _, h := range hosts {
		h.set(func(h *host) { h.down = true })
		defer h.set(func(h *host) { h.down = false })
	}
	if got, err := read(t.Context(), n.reopen(t, l, l.ref)); err != nil || !bytes.Equal(got, l.disk) {
		t.Fatalf("read from the cache: %v", err)
	}
}

// checkLater reads l once more from n, whose only host serves what is right from
// now on: nothing wrong that it served before is in the cache.
func (l layer) checkLater(t *testing.T, n *node, only *host) {
	t.Helper()
	only.set(func(h *host) { h.flip, h.data = -1, l.data })
	if got, err := read(t.Context(), n.reopen(t, l, l.ref)); err != nil || !bytes.Equal(got, l.disk) {
		t.Fatalf("when the host is right: %v", err)
	}
	if f := n.failures(); len(f) != 0 {
		t.Fatalf("when the host is right: failures %v", f)
	}
	l.checkCached(t, n, only)
}

// checkAlone reads l from its only host, where a bit is wrong.
func (l layer) checkAlone(t *testing.T, n *node, bad *host, bit int64) {
	t.Helper()
	got, err := read(t.Context(), n.open(t, l, l.ref))
	n.failures()
	if !bytes.Equal(got, l.disk[:len(got)]) {
		t.Fatalf("bit %d: a wrong byte got through", bit)
	}
	var e *chunks.Error
	switch r := l.region(bit); {
	case err == nil:
		// A reader needs no page of which it reads no leaf.
		if len(got) != len(l.disk) || r == covered {
			t.Fatalf("bit %d: read %d bytes without an error", bit, len(got))
		}
	case !errors.As(err, &e) || !blob.IsPermanent(err):
		t.Fatalf("bit %d: error %v", bit, err)
	case r == unread:
		t.Fatalf("bit %d, which nobody needs: %v", bit, err)
	case bit/8 < e.Offset || bit/8 >= e.Offset+e.Length || (e.Leaf < 0) != (r == table):
		t.Fatalf("bit %d: error names the %d bytes at %d of leaf %d", bit, e.Length, e.Offset, e.Leaf)
	case !slices.Equal(e.Origins, []string{bad.origin()}) || !strings.Contains(err.Error(), bad.name):
		t.Fatalf("bit %d: error names %q", bit, e.Origins)
	}
}

// TestSwappedBlocks serves a layer in which a block is one of another layer,
// and every checksum that the formats have says that it belongs there.
func TestSwappedBlocks(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	disk := text(1<<20, 2)
	for _, at := range []int{0, 100, 255} { // blocks that do not compress: as long as their replacement
		copy(disk[at*4096:], noise(rng))
	}
	evilDisk := bytes.Clone(disk)
	for _, at := range []int{0, 100, 255} {
		copy(evilDisk[at*4096:], noise(rng))
	}
	for _, a := range []zfile.Algorithm{zfile.LZ4, zfile.ZSTD} {
		opts := zfile.Options{Algorithm: a}
		l, evil := pack(t, disk, opts), pack(t, evilDisk, opts)
		if len(l.data) != len(evil.data) {
			t.Fatal("the layers differ in length")
		}
		// The whole other layer, and that with the table of the right one.
		patched := slices.Concat(evil.data[:l.ref.Offset], l.data[l.ref.Offset:])
		for name, data := range map[string][]byte{"whole layer": evil.data, "blocks": patched} {
			t.Run(a.String()+"/"+name, func(t *testing.T) { l.checkSwap(t, data, evilDisk) })
		}
	}
}

// checkSwap serves data in place of l, which reads as evilDisk to those who do
// not verify.
func (l layer) checkSwap(t *testing.T, data, evilDisk []byte) {
	bad, good := newHost(t, data), newHost(t, l.data)
	alone := newNode(t, bad)
	got, err := read(t.Context(), alone.open(t, l, chunks.Ref{}))
	if err != nil || !bytes.Equal(got, evilDisk) {
		t.Fatalf("the formats' own checksums find it: %v", err)
	}
	got, err = read(t.Context(), alone.open(t, l, l.ref))
	var e *chunks.Error
	if !errors.As(err, &e) || !blob.IsPermanent(err) || !slices.Equal(e.Origins, []string{bad.origin()}) {
		t.Errorf("error %v", err)
	}
	if !bytes.Equal(got, l.disk[:len(got)]) {
		t.Error("a wrong byte got through")
	}
	alone.failures()
	l.checkLater(t, alone, bad)
	bad.set(func(h *host) { h.data = data })
	for _, hosts := range [][]*host{{bad, good}, {good, bad}, {bad, good, bad}} {
		n := newNode(t, hosts...)
		got, err := read(t.Context(), n.open(t, l, l.ref))
		if err != nil || !bytes.Equal(got, l.disk) {
			t.Errorf("with a good host: %v", err)
		}
		if f := n.failures(); f[good.origin()] != 0 || (hosts[0] == bad) != (f[bad.origin()] > 0) {
			t.Errorf("failures %v", f)
		}
		l.checkCached(t, n, hosts...)
	}
}

// TestMovedLeaves exchanges two blocks of one layer.
func TestMovedLeaves(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	disk := slices.Concat(noise(rng), text(128<<10, 3), noise(rng))
	l := pack(t, disk, zfile.Options{})
	var leaves []chunks.Leaf
	tb, err := chunks.Open(t.Context(), inMemory(l.data[l.ref.Offset:l.ref.Offset+l.ref.Size]), l.ref.Root)
	if err != nil {
		t.Fatal(err)
	}
	for leaf, err := range tb.Leaves(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if leaf.Length > 4096 && (len(leaves) == 0 || leaf.Length <= leaves[0].Length) {
			if len(leaves) > 0 && leaf.Length < leaves[0].Length {
				leaves = nil // that was a block with something short before it
			}
			leaves = append(leaves, leaf)
		}
	}
	if len(leaves) < 2 {
		t.Fatalf("no two leaves of a length: %+v", leaves)
	}
	a, b := leaves[0], leaves[len(leaves)-1]
	moved := bytes.Clone(l.data)
	copy(moved[a.Offset:], l.data[b.Offset:b.Offset+int64(b.Length)])
	copy(moved[b.Offset:], l.data[a.Offset:a.Offset+int64(a.Length)])
	only := newHost(t, moved)
	n := newNode(t, only)
	if got, err := read(t.Context(), n.open(t, l, chunks.Ref{})); err != nil || bytes.Equal(got, l.disk) {
		t.Fatalf("the formats' own checksums find it: %v", err)
	}
	got, err := read(t.Context(), n.open(t, l, l.ref))
	var e *chunks.Error
	if !errors.As(err, &e) || e.Leaf != a.Number && e.Leaf != b.Number || !bytes.Equal(got, l.disk[:len(got)]) {
		t.Errorf("error %v", err)
	}
	n.failures()
	l.checkLater(t, n, only)
}

// TestEveryHostIsWrongSomewhere has two hosts with errors in different places,
// then in the same.
func TestEveryHostIsWrongSomewhere(t *testing.T) {
	l := pack(t, text(512<<10, 4), zfile.Options{})
	one, two := newHost(t, l.data), newHost(t, l.data)
	n := newNode(t, one, two)
	one.set(func(h *host) { h.flip = 40_000 * 8 })
	two.set(func(h *host) { h.flip = 90_000 * 8 })
	got, err := read(t.Context(), n.open(t, l, l.ref))
	if err != nil || !bytes.Equal(got, l.disk) {
		t.Errorf("different places: %v", err)
	}
	n.failures()
	one.set(func(h *host) { h.flip = 90_000*8 + 3 })
	_, err = read(t.Context(), n.open(t, l, l.ref))
	var e *chunks.Error
	if !errors.As(err, &e) || !blob.IsPermanent(err) {
		t.Fatalf("the same place: %v", err)
	}
	slices.Sort(e.Origins)
	want := []string{one.origin(), two.origin()}
	slices.Sort(want)
	if !slices.Equal(e.Origins, want) || !slices.Equal(slices.Sorted(maps.Keys(n.failures())), want) {
		t.Errorf("the same place: error names %q", e.Origins)
	}
}

// TestGoodHostIsDown has the only host that is right not answer: that is
// nothing to give up for.
func TestGoodHostIsDown(t *testing.T) {
	l := pack(t, text(512<<10, 5), zfile.Options{})
	bad, good := newHost(t, l.data), newHost(t, l.data)
	bad.set(func(h *host) { h.flip = 50_000 * 8 })
	good.set(func(h *host) { h.down = true })
	for _, n := range []*node{newNode(t, bad, good), newNode(t, good, bad)} {
		_, err := read(t.Context(), n.open(t, l, l.ref))
		var e *chunks.Error
		if !errors.As(err, &e) || blob.IsPermanent(err) || !strings.Contains(err.Error(), "could not be asked") {
			t.Errorf("error %v", err)
		}
	}
	n := newNode(t, bad, good)
	b := n.open(t, l, l.ref)
	if _, err := read(t.Context(), b); err == nil {
		t.Error("no error")
	}
	good.set(func(h *host) { h.down = false })
	if got, err := read(t.Context(), b); err != nil || !bytes.Equal(got, l.disk) {
		t.Errorf("when it is back: %v", err)
	}
}
