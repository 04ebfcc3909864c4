package fetchplan_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/fetchplan"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/tracelayer"
)

// TestMap replays reads on a node that has opened the layers and then gets what Map
// says: nothing is missing, and nothing is there that no read needs.
func TestMap(t *testing.T) {
	for name, layers := range images(t) {
		t.Run(name, func(t *testing.T) {
			trace, reads, _ := record(t, layers, 600)
			replayMapped(t, layers, trace, reads)
		})
	}
}

func replayMapped(t *testing.T, layers []fetchplan.Layer, trace tracelayer.Trace, reads []read) {
	t.Helper()
	p, skipped, err := fetchplan.Map(t.Context(), layers, trace)
	if err != nil || skipped != 0 || p.Validate() != nil {
		t.Fatalf("%d skipped, %v, %v", skipped, err, p.Validate())
	}
	n := &node{}
	for i, l := range layers {
		a := newArriving(l)
		if _, err := l.Blob.ReadAt(t.Context(), a.data, 0); err != nil {
			t.Fatal(err)
		}
		a.all = true
		if i > 0 && l.Digest == layers[0].Digest {
			a = n.below[0]
		}
		n.below, n.tops = append(n.below, a), append(n.tops, a)
	}
	img, err := backstore.Open(t.Context(), n.tops)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range n.below {
		a.all = false
	}
	for i, e := range p.Extents {
		if e.Stored != 0 || e.Sum != [32]byte{} {
			t.Errorf("extent %d has data", i)
		}
		a := n.below[e.Layer]
		a.put(t, e.Off, a.data[e.Off:e.Off+e.Size])
	}
	for i, rd := range reads {
		if _, err := img.ReadAt(t.Context(), make([]byte, rd.n), rd.off); err != nil {
			t.Fatalf("read %d: %v", i, err)
		}
	}
	if n := n.unused(); n > 0 {
		t.Errorf("%d bytes of %d extents are needed by no read", n, len(p.Extents))
	}
}

// TestUpstream replays upstream's traces of the reads that upstream was given: of
// the vectors, and of the golden image, where there is one.
func TestUpstream(t *testing.T) {
	for _, form := range []string{"lz4-4k.tar", "lz4-16k-trailer.tar", "raw.lsmt"} {
		t.Run(form, func(t *testing.T) {
			replayUpstream(t, vector(t, form), "../../tracelayer/testdata/vectors/small-chain3.trace", vectors+"trace.reads.txt", 39)
		})
	}
	t.Run("busybox", func(t *testing.T) {
		dir := "../../../shared/golden/images"
		if _, err := os.Stat(dir); err != nil {
			t.Skip("no golden data:", err)
		}
		layers := golden(t, filepath.Join(dir, "busybox-obd-trace"))
		slot := layers[len(layers)-1]
		l, err := tracelayer.ReadLayer(t.Context(), slot.Blob)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(t.TempDir(), "trace")
		p := make([]byte, l.Slot.Size)
		if _, err := slot.Blob.ReadAt(t.Context(), p, l.Slot.Off); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, p, 0o600); err != nil {
			t.Fatal(err)
		}
		replayUpstream(t, layers[:len(layers)-1], name, filepath.Join(dir, "trace-layer.reads.txt"), 149)
	})
}

func replayUpstream(t *testing.T, layers []fetchplan.Layer, traceFile, readsFile string, records int) {
	t.Helper()
	raw, err := os.ReadFile(traceFile)
	if err != nil {
		t.Fatal(err)
	}
	trace, err := tracelayer.Decode(raw)
	if err != nil || len(trace) != records {
		t.Fatalf("%d records, %v", len(trace), err)
	}
	text, err := os.ReadFile(readsFile)
	if err != nil {
		t.Fatal(err)
	}
	var reads []read
	for line := range strings.Lines(string(text)) {
		var r read
		if _, err := fmt.Sscan(line, &r.off, &r.n); err != nil {
			t.Fatal(err)
		}
		reads = append(reads, r)
	}
	// The reads go past the end of the small device.
	img, err := backstore.Open(t.Context(), blobs(layers))
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range reads {
		reads[i].n = min(r.n, img.Size()-r.off)
	}
	replayMapped(t, layers, trace, reads)
	p, content := build(t, layers, trace)
	n := newNode(layers)
	for i, e := range p.Extents {
		n.below[e.Layer].put(t, e.Off, content[i])
	}
	if img, err = backstore.Open(t.Context(), n.tops); err != nil {
		t.Fatal(err)
	}
	for i, r := range reads {
		if _, err := img.ReadAt(t.Context(), make([]byte, r.n), r.off); err != nil {
			t.Errorf("read %d: %v", i, err)
		}
	}
}

// golden returns the layers of the image in an OCI layout.
func golden(t *testing.T, dir string) (layers []fetchplan.Layer) {
	t.Helper()
	path := func(d string) string { return filepath.Join(dir, "blobs", strings.Replace(d, ":", "/", 1)) }
	load := func(v any, name string) {
		raw, err := os.ReadFile(name)
		if err == nil {
			err = json.Unmarshal(raw, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var index struct{ Manifests []struct{ Digest string } }
	var manifest struct{ Layers []struct{ Digest string } }
	load(&index, filepath.Join(dir, "index.json"))
	load(&manifest, path(index.Manifests[0].Digest))
	for _, l := range manifest.Layers {
		layers = append(layers, layer(t, path(l.Digest), chunks.Ref{}))
	}
	return layers
}
