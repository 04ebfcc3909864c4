package fetchplan_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/convert"
	"github.com/reprise-containers/reprise/backstore/fetchplan"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/tracelayer"
)

const vectors = "../testdata/vectors/small-chain3/"

// archive returns a layer of files with content that compresses, some of it.
func archive(t testing.TB, seed uint64, files int) []byte {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range files {
		content := make([]byte, rng.IntN(1<<(8+rng.IntN(10))))
		for at := range content {
			content[at] = byte(rng.IntN(64))
		}
		h := tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%d-%d", seed, i), Mode: 0o644, Size: int64(len(content))}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// converted returns an image of two layers as the converter makes them, with chunk
// tables.
func converted(t testing.TB, algorithm zfile.Algorithm, files int) []fetchplan.Layer {
	t.Helper()
	c, err := convert.NewChain(convert.Options{Dir: t.TempDir(), VirtualSize: 1 << 30, Compression: zfile.Options{Algorithm: algorithm, BlockSize: 4096}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var layers []fetchplan.Layer
	for n, id := range []convert.ID{
		{ChainID: digest.FromString("0")},
		{ChainID: digest.FromString("1"), ParentChainID: digest.FromString("0")},
	} {
		l, err := c.Add(t.Context(), bytes.NewReader(archive(t, uint64(n), files)), id)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(filepath.Join(t.TempDir(), "layer"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Write(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, layer(t, f.Name(), b.Chunks))
		f.Close()
		l.Close()
	}
	return layers
}

// layer returns the layer in a file.
func layer(t testing.TB, name string, table chunks.Ref) fetchplan.Layer {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b := blobtest.Bytes(data)
	return fetchplan.Layer{Digest: b.Descriptor().Digest, Size: b.Size(), Blob: b, Table: table}
}

// vector returns the layers of an image that overlaybd's tools made.
func vector(t testing.TB, form string) (layers []fetchplan.Layer) {
	t.Helper()
	for i := range 3 {
		layers = append(layers, layer(t, fmt.Sprintf("%sL%d.%s", vectors, i, form), chunks.Ref{}))
	}
	return layers
}

// appended returns vector with chunk tables appended.
func appended(t testing.TB, form string) (layers []fetchplan.Layer) {
	t.Helper()
	for i := range 3 {
		data, err := os.ReadFile(fmt.Sprintf("%sL%d.%s", vectors, i, form))
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(t.TempDir(), "layer")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		ref, _, _, err := backstore.AppendChunks(t.Context(), f, int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		layers = append(layers, layer(t, name, ref))
	}
	return layers
}

// images returns images in all forms.
func images(t testing.TB) map[string][]fetchplan.Layer {
	twice := converted(t, zfile.ZSTD, 40)
	all := map[string][]fetchplan.Layer{
		"converted":     converted(t, zfile.ZSTD, 300),
		"converted lz4": converted(t, zfile.LZ4, 300),
		"small":         converted(t, zfile.ZSTD, 1),
		"a layer twice": {twice[0], twice[1], twice[0]},
	}
	for _, form := range []string{"lz4-4k.tar", "lz4-16k-trailer.tar", "zstd-64k.tar", "raw.lsmt", "lz4-4k.zfile", "lz4-4k.registry.tar"} {
		all[form] = vector(t, form)
	}
	for _, form := range []string{"lz4-4k.tar", "lz4-16k-trailer.tar", "zstd-64k.tar"} {
		all[form+" with tables"] = appended(t, form)
	}
	return all
}

// read is a read of a device.
type read struct{ off, n int64 }

// readsOf returns reads of where a device has data: some in sequence, some of no
// order, some of more than one segment.
func readsOf(img *lsmt.Image, n int) (reads []read) {
	rng := rand.New(rand.NewPCG(7, 7))
	var segments []lsmt.Segment
	for s := range img.Segments() {
		segments = append(segments, s)
	}
	for len(reads) < n {
		s := segments[rng.IntN(len(segments))]
		off := (s.Offset + rng.Int64N(s.Length)) * lsmt.SectorSize / 4096 * 4096
		for range 1 + rng.IntN(20) {
			r := read{off, 4096 << rng.IntN(rng.IntN(5)+1)}
			if off = r.off + r.n; off > img.Size() {
				break
			}
			reads = append(reads, r)
		}
	}
	return reads
}

// record returns the trace of reads of an image and what they return.
func record(t testing.TB, layers []fetchplan.Layer, n int) (tracelayer.Trace, []read, [][sha256.Size]byte) {
	t.Helper()
	r := tracelayer.NewRecorder(0)
	img, err := backstore.OpenRecorded(t.Context(), blobs(layers), r)
	if err != nil {
		t.Fatal(err)
	}
	reads := readsOf(img, n)
	var sums [][sha256.Size]byte
	for _, rd := range reads {
		sums = append(sums, sumOf(t, img, rd))
	}
	return r.Stop(), reads, sums
}

func blobs(layers []fetchplan.Layer) (all []blob.ReaderAt) {
	for _, l := range layers {
		all = append(all, l.Blob)
	}
	return all
}

func sumOf(t testing.TB, img *lsmt.Image, rd read) [sha256.Size]byte {
	t.Helper()
	p := make([]byte, rd.n)
	if _, err := img.ReadAt(t.Context(), p, rd.off); err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(p)
}

// errMissing is the error of reads of what has not arrived.
var errMissing = errors.New("has not arrived")

// arriving is a blob that has only what arrived of it.
type arriving struct {
	desc ocispec.Descriptor

	mu    sync.Mutex // of what follows: joined reads go on after who asked has left
	data  []byte
	there []bool
	used  []bool
	all   bool // has arrived

	unused int // bytes that arrived and nobody read
}

func newArriving(l fetchplan.Layer) *arriving {
	return &arriving{
		desc: ocispec.Descriptor{Digest: l.Digest, Size: l.Size},
		data: make([]byte, l.Size), there: make([]bool, l.Size), used: make([]bool, l.Size),
	}
}

func (a *arriving) Size() int64                    { return a.desc.Size }
func (a *arriving) Descriptor() ocispec.Descriptor { return a.desc }

// put has p arrive; no byte arrives twice.
func (a *arriving) put(t testing.TB, off int64, p []byte) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range p {
		if a.there[off+int64(i)] {
			t.Fatalf("byte %d of %s arrives twice", off+int64(i), a.desc.Digest)
		}
		a.there[off+int64(i)] = true
		if !a.used[off+int64(i)] {
			a.unused++
		}
	}
	copy(a.data[off:], p)
}

func (a *arriving) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range p {
		if at := off + int64(i); at < a.Size() && !a.all && !a.there[at] {
			return 0, blob.Permanent(fmt.Errorf("byte %d of a read of %d at %d %w", at, len(p), off, errMissing))
		}
	}
	n := copy(p, a.data[off:])
	for i := range n {
		at := off + int64(i)
		if !a.used[at] && a.there[at] {
			a.unused--
		}
		a.used[at] = true
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// node reads an image as a node does, from what has arrived.
type node struct {
	below []*arriving
	tops  []blob.ReaderAt
}

func newNode(layers []fetchplan.Layer) *node {
	n := &node{}
	shared := make(map[digest.Digest]int)
	for i, l := range layers {
		if k, ok := shared[l.Digest]; ok {
			n.below, n.tops = append(n.below, n.below[k]), append(n.tops, n.tops[k])
			continue
		}
		shared[l.Digest] = i
		a := newArriving(l)
		above := &top{size: l.Size}
		above.Blob = blob.Coalesce(chunks.Verify(a, l.Table, blob.Section(above, l.Table.Offset, l.Table.Size), nil))
		n.below, n.tops = append(n.below, a), append(n.tops, above)
	}
	return n
}

// unused returns how many bytes arrived and were not read so far.
func (n *node) unused() (bytes int) {
	for i, a := range n.below {
		if !slices.Contains(n.below[:i], a) {
			a.mu.Lock()
			bytes += a.unused
			a.mu.Unlock()
		}
	}
	return bytes
}

// top is a blob that is read through what is made of it.
type top struct {
	blob.Blob
	size int64
}

func (t *top) Size() int64 { return t.size }

// arrivals cuts data into the extents' bytes and compares them with their sums.
func arrivals(t testing.TB, p *tracelayer.Plan, data []byte) [][]byte {
	t.Helper()
	var all [][]byte
	for i, e := range p.Extents {
		b, err := e.Unpack(data[:e.Stored])
		if err != nil || sha256.Sum256(b) != e.Sum {
			t.Fatalf("extent %d: %v, or wrong sum", i, err)
		}
		all, data = append(all, b), data[e.Stored:]
	}
	if len(data) > 0 {
		t.Errorf("%d bytes behind the last extent", len(data))
	}
	return all
}
