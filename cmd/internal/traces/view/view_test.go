package view_test

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/cmd/internal/traces/view"
	"github.com/reprise-containers/reprise/tracelayer"
)

func read(layer uint32, off, count int64) tracelayer.Record {
	return tracelayer.Record{Op: tracelayer.Read, Layer: layer, Off: off, Count: count}
}

func TestNew(t *testing.T) {
	layers := []tracelayer.PlanLayer{{Digest: digest.FromString("a"), Size: 1000}, {Digest: digest.FromString("b"), Size: 500}}
	r := view.New(&traces.Recording{
		Name:   "x",
		Trace:  tracelayer.Trace{read(0, 0, 100), {Op: 'W', Count: 5}, read(9, 5, 5), read(0, 50, 100), read(0, 0, -1)},
		Layers: layers,
		Plan:   &tracelayer.Plan{Layers: layers, Extents: []tracelayer.Extent{{Layer: 1, Size: 50, Stored: 50}, {Layer: 1, Off: 50, Size: 10}}},
		Notes:  []string{"something"},
	})
	want := &view.Report{
		Name: "x", Reads: 3, Bytes: 205, Distinct: 155, Skipped: 2, Notes: []string{"something"},
		Layers: []view.Layer{
			{Index: 0, Digest: layers[0].Digest, Size: 1000, Reads: 2, Bytes: 200, Distinct: 150, End: 150},
			{Index: 1, Digest: layers[1].Digest, Size: 500, Extents: 2, Planned: 60},
			{Index: 9, Reads: 1, Bytes: 5, Distinct: 5, End: 10},
		},
		Plan: &view.Plan{Extents: 2, Bytes: 60, Data: 50},
		Records: []view.Record{
			{Layer: 0, Off: 0, Count: 100, New: 100, Total: 100},
			{Layer: 9, Off: 5, Count: 5, New: 5, Total: 105},
			{Layer: 0, Off: 50, Count: 100, New: 50, Total: 155},
		},
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("%+v, want %+v", r, want)
	}
	f := r.Figure()
	if len(f.Panels) != 3 || len(f.Panels[0].Marks) != 2 || len(f.Panels[1].Marks) != 1 || len(f.Panels[2].Line) != 4 {
		t.Errorf("figure %+v", f)
	}
	if !strings.HasPrefix(f.Panels[1].Title, "layer 9: 1 reads") || f.Panels[2].Line[3].Y != 155 {
		t.Errorf("figure %+v", f)
	}
}

// TestForeign describes traces that nobody recorded.
func TestForeign(t *testing.T) {
	var many tracelayer.Trace
	for i := range uint32(1000) {
		many = append(many, read(math.MaxUint32-i, math.MaxInt64-1, 1))
	}
	for name, trace := range map[string]tracelayer.Trace{
		"many layers": many,
		"no reads":    {{Op: 'W'}},
		"huge":        {read(0, 0, math.MaxInt64), read(1, 0, math.MaxInt64)},
	} {
		r := view.New(&traces.Recording{Name: name, Trace: trace})
		f := r.Figure()
		if len(f.Panels) > 65 {
			t.Errorf("%s: %d panels", name, len(f.Panels))
		}
		var b bytes.Buffer
		for _, err := range []error{f.SVG(&b), r.Print(&b, false), r.Print(&b, true)} {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if len(f.Panels) > 10 {
			continue // the race detector takes its time over ten million pixels
		}
		if err := f.PNG(&b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
