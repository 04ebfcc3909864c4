package check_test

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cmd/internal/check"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

// A trace layer is checked for what it says about the image. What is wrong with
// that never keeps the image from being read.
func TestTraceLayer(t *testing.T) {
	layer := readFile(t, "small-chain3/L0.lz4-4k.tar")
	plan := tracelayer.Plan{
		Layers:  []tracelayer.PlanLayer{{Digest: digest.FromBytes(layer), Size: int64(len(layer))}},
		Extents: []tracelayer.Extent{{Off: 512, Size: 100, Sum: sha256.Sum256(layer[512:612]), Stored: 100}},
	}
	other := plan
	other.Layers = []tracelayer.PlanLayer{{Digest: digest.FromString("other"), Size: int64(len(layer))}}
	read := tracelayer.Record{Op: tracelayer.Read, Count: 512}
	foreign := read
	foreign.Layer = 1
	make3 := func(trace tracelayer.Trace, p tracelayer.Plan, data []byte) ([]byte, map[string]string) {
		t.Helper()
		text, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		info, err := tracelayer.WriteLayer(&b, tracelayer.Contents{Slot: trace.Encode(), Plan: text, Data: bytes.NewReader(data), DataSize: int64(len(data))})
		if err != nil {
			t.Fatal(err)
		}
		return b.Bytes(), labels.TraceBlob{Blob: info.Digest, BlobSize: info.Size, Plan: info.Plan}.Annotations()
	}
	good, said := make3(tracelayer.Trace{read}, plan, layer[512:612])
	elsewhere := labels.WithPlan(tracelayer.Member{Offset: 512, Size: 100, Digest: digest.FromString("x")})
	for name, c := range map[string]struct {
		trace tracelayer.Trace
		plan  tracelayer.Plan
		data  []byte
		said  map[string]string
		kinds []check.Kind
		text  string
	}{
		"good":           {tracelayer.Trace{read}, plan, layer[512:612], nil, nil, ""},
		"other layers":   {tracelayer.Trace{read}, other, layer[512:612], nil, []check.Kind{check.Trace}, "the plan is of another image: layer 0 is"},
		"other data":     {tracelayer.Trace{read}, plan, layer[513:613], nil, []check.Kind{check.Trace}, "not what the plan has the sum of"},
		"unknown layer":  {tracelayer.Trace{read, foreign}, plan, layer[512:612], nil, []check.Kind{check.Trace}, "1 of 2 reads"},
		"plan elsewhere": {tracelayer.Trace{read}, plan, layer[512:612], elsewhere, []check.Kind{check.Descriptor}, "100 bytes at 512"},
	} {
		blob, annotations := make3(c.trace, c.plan, c.data)
		if c.said != nil {
			annotations = c.said
		}
		img := image(newMemory(layer, digest.FromBytes(layer)))
		m := newMemory(blob, digest.FromBytes(blob))
		m.desc.Annotations = annotations
		img.Trace = m
		r := run(t, img)
		if r.Errors != 0 || r.Warnings != len(c.kinds) || !slices.Equal(kinds(r, 1), c.kinds) {
			t.Errorf("%s: %+v", name, r)
		} else if c.text != "" && !strings.Contains(r.Layers[1].Problems[0].Text, c.text) {
			t.Errorf("%s: %+v, want %q", name, r.Layers[1].Problems, c.text)
		}
	}

	// One that other layers lie on.
	img := image(newMemory(layer, digest.FromBytes(layer)))
	m := newMemory(good, digest.FromBytes(good))
	m.desc.Annotations = said
	img.Stale = []blob.Blob{m}
	r := run(t, img)
	if r.Errors != 0 || r.Warnings != 1 || len(r.Layers) != 2 || !r.Layers[1].Trace || !strings.Contains(r.Layers[1].Problems[0].Text, "reprise trace strip") {
		t.Errorf("%+v", r)
	}
}
