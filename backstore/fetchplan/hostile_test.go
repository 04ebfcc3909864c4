package fetchplan_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore/fetchplan"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/tracelayer"
)

// TestSkipped has records that fit nothing among those that do.
func TestSkipped(t *testing.T) {
	layers := vector(t, "lz4-4k.tar")
	good := tracelayer.Trace{{Op: tracelayer.Read, Layer: 1, Off: 4096, Count: 512}}
	want, _, err := fetchplan.Build(t.Context(), layers, good, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := tracelayer.Trace{
		{Op: tracelayer.Write, Layer: 1, Off: 8192, Count: 512},
		{Op: tracelayer.Read, Layer: 3, Off: 4096, Count: 512},
		{Op: tracelayer.Read, Layer: math.MaxUint32, Off: 4096, Count: 512},
		{Op: tracelayer.Read, Layer: 0, Off: -1, Count: 512},
		{Op: tracelayer.Read, Layer: 0, Off: 0, Count: 0},
		{Op: tracelayer.Read, Layer: 0, Off: 0, Count: -1},
		{Op: tracelayer.Read, Layer: 0, Off: 0, Count: 1 << 40},
		{Op: tracelayer.Read, Layer: 0, Off: 1 << 40, Count: 1},
		{Op: tracelayer.Read, Layer: 0, Off: math.MaxInt64, Count: math.MaxInt64},
		{Op: 0, Layer: 0, Off: math.MinInt64, Count: math.MinInt64},
		good[0],
	}
	for name, plan := range map[string]func() (*tracelayer.Plan, int, error){
		"Build": func() (*tracelayer.Plan, int, error) { return fetchplan.Build(t.Context(), layers, all, nil) },
		"Map":   func() (*tracelayer.Plan, int, error) { return fetchplan.Map(t.Context(), layers, all) },
	} {
		got, skipped, err := plan()
		if err != nil || skipped != len(all)-1 {
			t.Errorf("%s: %d records skipped, %v", name, skipped, err)
		}
		if name == "Build" && !slices.Equal(got.Extents, want.Extents) {
			t.Errorf("%s: %v, want %v", name, got.Extents, want.Extents)
		}
		if name == "Map" && len(got.Extents) != 1 {
			t.Errorf("%s: %v", name, got.Extents)
		}
	}
}

// TestMillion has a million records that overlap: of all of a layer but its end, of
// its halves, of pieces. They cost what the layer has to give.
func TestMillion(t *testing.T) {
	layers := converted(t, zfile.ZSTD, 300)
	p, _, err := fetchplan.Map(t.Context(), layers, tracelayer.Trace{{Op: tracelayer.Read, Count: 1}})
	if err != nil || len(p.Extents) != 1 {
		t.Fatal(p, err)
	}
	size := layers[0].Size // less than that of the stream, which is not compressed
	rng := rand.New(rand.NewPCG(3, 3))
	for name, next := range map[string]func() tracelayer.Record{
		"all": func() tracelayer.Record { return tracelayer.Record{Count: size} },
		"random": func() tracelayer.Record {
			return tracelayer.Record{Off: rng.Int64N(size / 2), Count: 1 + rng.Int64N(size/2)}
		},
		"pieces": func() tracelayer.Record { return tracelayer.Record{Off: rng.Int64N(size), Count: 1} },
	} {
		t.Run(name, func(t *testing.T) {
			trace := make(tracelayer.Trace, 1_000_000)
			for i := range trace {
				trace[i] = next()
				trace[i].Op = tracelayer.Read
			}
			for _, plan := range []func() (*tracelayer.Plan, int, error){
				func() (*tracelayer.Plan, int, error) {
					return fetchplan.Build(t.Context(), layers, trace, io.Discard)
				},
				func() (*tracelayer.Plan, int, error) { return fetchplan.Map(t.Context(), layers, trace) },
			} {
				p, skipped, err := plan()
				if err != nil || skipped != 0 || p.Validate() != nil {
					t.Fatalf("%d skipped, %v, %v", skipped, err, p.Validate())
				}
				if most := layers[0].Size + layers[1].Size; p.Size() > most {
					t.Errorf("%d bytes are in the plan, the layers have %d", p.Size(), most)
				}
			}
		})
	}
}

// TestMost has more reads than a plan is to have extents: the first are in it.
func TestMost(t *testing.T) {
	layers := converted(t, zfile.ZSTD, 300)
	trace, _, _ := record(t, layers, 600)
	whole, _ := build(t, layers, trace)
	mapped, _, err := fetchplan.Map(t.Context(), layers, trace)
	if err != nil {
		t.Fatal(err)
	}
	half, skipped, err := fetchplan.BuildMost(t.Context(), layers, trace, nil, len(whole.Extents)/2)
	n := len(half.Extents)
	if err != nil || skipped == 0 || n < len(whole.Extents)/4 || n > len(whole.Extents)*3/4 {
		t.Errorf("%d of %d extents, %d of %d records skipped, %v", n, len(whole.Extents), skipped, len(trace), err)
	}
	for i, e := range half.Extents[:n/2] {
		if want := whole.Extents[i]; e.Layer != want.Layer || e.Off != want.Off || e.Size != want.Size || e.Sum != want.Sum {
			t.Errorf("extent %d is %v, want %v", i, e, want)
		}
	}
	half, skipped, err = fetchplan.MapMost(t.Context(), layers, trace, len(mapped.Extents)/2)
	n = len(half.Extents)
	// The last one would have become longer.
	if err != nil || skipped == 0 || n < len(mapped.Extents)/2 || !slices.Equal(half.Extents[:n-1], mapped.Extents[:n-1]) {
		t.Errorf("%d of %d extents are mapped, %d records skipped, %v", n, len(mapped.Extents), skipped, err)
	}
}

// TestErrors has layers and writers that nothing can be planned with.
func TestErrors(t *testing.T) {
	layers := converted(t, zfile.ZSTD, 60)
	trace, _, _ := record(t, layers, 100)
	change := func(f func(*fetchplan.Layer)) []fetchplan.Layer {
		c := slices.Clone(layers)
		f(&c[1])
		return c
	}
	bad := func(from int64) *blobtest.Faulty {
		return blobtest.NewFaulty(layers[1].Blob.(*blobtest.Faulty).Blob, blobtest.Fault{Corrupt: true, Off: from, Len: 1})
	}
	layers[1].Blob = blobtest.NewFaulty(blobtest.Bytes(contentOf(t, layers[1])))
	for name, c := range map[string]struct {
		layers []fetchplan.Layer
		want   string
	}{
		"no digest":       {change(func(l *fetchplan.Layer) { l.Digest = "" }), "layer 1: digest"},
		"size":            {change(func(l *fetchplan.Layer) { l.Size++ }), "layer 1: blob has"},
		"no layer":        {change(func(l *fetchplan.Layer) { l.Blob, l.Table = blobtest.Bytes(make([]byte, l.Size)), chunks.Ref{} }), "opening layer 1"},
		"table":           {change(func(l *fetchplan.Layer) { l.Table.Offset += 512 }), "opening layer 1"},
		"damaged start":   {change(func(l *fetchplan.Layer) { l.Blob = bad(10) }), "opening layer 1"},
		"too many layers": {slices.Repeat(layers, 200), "400 layers"},
	} {
		if p, _, err := fetchplan.Build(t.Context(), c.layers, trace, nil); err == nil || p != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	p, _, err := fetchplan.Build(t.Context(), layers, trace, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range p.Extents {
		if e.Layer != 1 {
			continue
		}
		damaged := change(func(l *fetchplan.Layer) { l.Blob = bad(e.Off + e.Size/2) })
		if _, _, err := fetchplan.Build(t.Context(), damaged, trace, nil); err == nil {
			t.Errorf("%d bytes at offset %d are damaged and nobody notices", e.Size, e.Off)
		}
	}
	full := errors.New("disk is full")
	if _, _, err := fetchplan.Build(t.Context(), layers, trace, failing{full}); !errors.Is(err, full) {
		t.Errorf("with a full disk: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(full)
	if _, _, err := fetchplan.Build(ctx, layers, trace, nil); !errors.Is(err, full) && !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, _, err := fetchplan.Map(ctx, layers, trace); !errors.Is(err, full) && !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func contentOf(t testing.TB, l fetchplan.Layer) []byte {
	t.Helper()
	p := make([]byte, l.Size)
	if _, err := l.Blob.ReadAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// FuzzPlan has any records: plans are valid, and what is built has all that is
// mapped.
func FuzzPlan(f *testing.F) {
	seed := func(t tracelayer.Trace) (raw []byte) {
		for _, r := range t {
			raw = append(raw, byte(r.Op), byte(r.Layer))
			raw = binary.LittleEndian.AppendUint64(raw, uint64(r.Off))
			raw = binary.LittleEndian.AppendUint64(raw, uint64(r.Count))
		}
		return raw
	}
	images := [][]fetchplan.Layer{converted(f, zfile.ZSTD, 20), vector(f, "raw.lsmt")}
	trace, _, _ := record(f, images[0], 10)
	f.Add(seed(trace))
	f.Add(seed(tracelayer.Trace{{Op: tracelayer.Read, Layer: 1, Off: 100, Count: 1 << 62}, {Op: tracelayer.Read, Off: 511, Count: 2}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var trace tracelayer.Trace
		for ; len(raw) >= 18; raw = raw[18:] {
			trace = append(trace, tracelayer.Record{
				Op: tracelayer.Op(raw[0]), Layer: uint32(raw[1]),
				Off: int64(binary.LittleEndian.Uint64(raw[2:])), Count: int64(binary.LittleEndian.Uint64(raw[10:])),
			})
		}
		for _, layers := range images {
			var data bytes.Buffer
			p, skipped, err := fetchplan.Build(t.Context(), layers, trace, &data)
			if err != nil {
				t.Fatal(err)
			}
			n := newNode(layers)
			for i, b := range arrivals(t, p, data.Bytes()) {
				n.below[p.Extents[i].Layer].put(t, p.Extents[i].Off, b)
			}
			m, again, err := fetchplan.Map(t.Context(), layers, trace)
			if err != nil || again != skipped || m.Validate() != nil || p.Validate() != nil {
				t.Fatalf("%d and %d records skipped, %v, %v, %v", skipped, again, err, m.Validate(), p.Validate())
			}
			for _, e := range m.Extents {
				if _, err := n.below[e.Layer].ReadAt(t.Context(), make([]byte, e.Size), e.Off); err != nil {
					t.Fatalf("%d bytes at %d of layer %d are mapped, and not built: %v", e.Size, e.Off, e.Layer, err)
				}
			}
		}
	})
}
