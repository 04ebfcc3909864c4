package warm_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/files"
	"github.com/reprise-containers/reprise/cmd/internal/cacheconfig"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

// start reads what the plan says through the cache and checks it, and returns how many
// bodies the upstream had to send for that.
func (w *world) start(plan *tracelayer.Plan) int {
	w.t.Helper()
	before := w.fetches()
	for i, e := range plan.Extents {
		d := plan.Layers[e.Layer].Digest.String()
		got := w.get("blobs/"+d, fmt.Sprintf("%d-%d", e.Off, e.Off+e.Size-1))
		if !bytes.Equal(got, w.content[d][e.Off:e.Off+e.Size]) {
			w.t.Fatalf("extent %d of the plan is wrong", i)
		}
	}
	return w.fetches() - before
}

// A start through a cache that was asked for nothing but the manifest costs the
// upstream nothing.
func TestPlan(t *testing.T) {
	w := newWorld(t, nil)
	w.image()
	c, plan := w.contents()
	trace := w.trace(c)
	m := w.manifest(ocispec.Manifest{Layers: append(w.layers[:2:2], trace)})
	w.get("manifests/"+m.Digest.String(), "")
	s := w.settle(1)
	if s.Warmed != 1 || s.Partial != 0 || s.Bytes == 0 {
		t.Fatalf("came to %+v", s)
	}
	requests := w.fetches()
	if n := w.start(plan); n != 0 {
		t.Errorf("the start had %d bodies fetched", n)
	}
	// What a node streams: the data of the trace layer.
	at, err := labels.Plan(trace.Annotations)
	w.must(err)
	data := w.get("blobs/"+trace.Digest.String(), fmt.Sprintf("%d-", tracelayer.DataOffset(at)))
	if int64(len(data)) < plan.DataSize() || w.fetches() != requests {
		t.Errorf("%d bytes of data, %d more bodies fetched", len(data), w.fetches()-requests)
	}
	if requests > 20 {
		t.Errorf("%d requests for %d extents", requests, len(plan.Extents))
	}
	// The same image is not looked at again.
	w.get("manifests/"+m.Digest.String(), "")
	if s := w.settle(1); s.Traces != 2 || s.Warmed != 1 {
		t.Errorf("asked for twice: %+v", s)
	}
}

// A trace without a plan is mapped through the layers' jump tables.
func TestTraceWithoutPlan(t *testing.T) {
	w := newWorld(t, nil)
	w.image()
	c, plan := w.contents()
	m := w.manifest(ocispec.Manifest{Layers: append(w.layers[:2:2], w.trace(tracelayer.Contents{Slot: c.Slot}))})
	w.get("manifests/"+m.Digest.String(), "")
	if s := w.settle(1); s.Warmed != 1 || s.Partial != 0 {
		t.Fatalf("came to %+v", s)
	}
	// What verifies layers is in no trace, so some of the plan is not there.
	if n := w.start(plan); n >= len(plan.Extents)/2 {
		t.Errorf("the start had %d bodies fetched for %d extents", n, len(plan.Extents))
	}
}

// Of a list in place of a trace the files are read.
func TestList(t *testing.T) {
	w := newWorld(t, nil)
	w.golden("busybox-obd")
	list := []string{"/bin/busybox", "/no such file"}
	slot := []byte(strings.Join(list, "\n") + "\n")
	m := w.manifest(ocispec.Manifest{Layers: append(slices.Clip(w.layers), w.trace(tracelayer.Contents{Slot: slot}))})
	w.get("manifests/"+m.Digest.String(), "")
	if s := w.settle(1); s.Warmed != 1 || s.Partial != 1 {
		t.Fatalf("came to %+v", s)
	}
	before := w.fetches()
	var layers []blob.ReaderAt
	for _, d := range w.layers {
		layers = append(layers, remote{w, d})
	}
	dev, err := backstore.Open(t.Context(), layers)
	w.must(err)
	ranges, _, err := files.Ranges(t.Context(), dev, list)
	w.must(err)
	for _, r := range ranges {
		_, err := dev.ReadAt(t.Context(), make([]byte, r.Size), r.Off)
		w.must(err)
	}
	if n := w.fetches() - before; len(ranges) == 0 || n != 0 {
		t.Errorf("%d ranges of the files had %d bodies fetched", len(ranges), n)
	}
}

// A trace beside an image is of the layers that the image's manifest names.
func TestArtifact(t *testing.T) {
	w := newWorld(t, nil)
	w.image()
	c, plan := w.contents()
	trace := w.trace(c)
	m := w.manifest(ocispec.Manifest{Layers: w.layers})
	a := w.manifest(ocispec.Manifest{ArtifactType: labels.TraceArtifact, Subject: &m, Layers: []ocispec.Descriptor{trace}})
	w.get("manifests/"+m.Digest.String(), "")
	w.get("manifests/"+a.Digest.String(), "")
	if s := w.settle(1); s.Warmed != 1 || s.Partial != 0 || s.Traces != 1 {
		t.Fatalf("came to %+v", s)
	}
	if n := w.start(plan); n != 0 {
		t.Errorf("the start had %d bodies fetched", n)
	}
}

// Whatever is wrong with a trace is counted, and the image is served as ever.
func TestBadTraces(t *testing.T) {
	w := newWorld(t, nil)
	w.image()
	c, _ := w.contents()
	good := w.trace(c)
	bad := func(change func(d *ocispec.Descriptor)) ocispec.Descriptor {
		d := good
		d.Annotations = map[string]string{}
		for k, v := range good.Annotations {
			d.Annotations[k] = v
		}
		change(&d)
		return d
	}
	garbage := w.put("", bytes.Repeat([]byte("garbage "), 1000))
	images := int64(0)
	for name, trace := range map[string]ocispec.Descriptor{
		"no archive": bad(func(d *ocispec.Descriptor) {
			d.Digest, d.Size = garbage.Digest, garbage.Size
			delete(d.Annotations, labels.PlanOffset)
		}),
		"plan elsewhere": bad(func(d *ocispec.Descriptor) { d.Digest, d.Size = garbage.Digest, garbage.Size }),
		"not there":      bad(func(d *ocispec.Descriptor) { d.Digest = digest.FromString("none") }),
		"no digest":      bad(func(d *ocispec.Descriptor) { d.Digest = "../../etc" }),
		"negative":       bad(func(d *ocispec.Descriptor) { d.Size = -1 }),
		"larger":         bad(func(d *ocispec.Descriptor) { d.Size = 1 << 40 }),
	} {
		m := w.manifest(ocispec.Manifest{Layers: append(w.layers[:2:2], trace), Annotations: map[string]string{"name": name}})
		w.get("manifests/"+m.Digest.String(), "")
		images++
		if s := w.settle(images); s.Invalid+s.Failed != images || s.Warmed != 0 {
			t.Fatalf("%s came to %+v", name, s)
		}
	}
	for _, d := range append(w.layers, good) {
		if got := digest.FromBytes(w.get("blobs/"+d.Digest.String(), "")); got != d.Digest {
			t.Errorf("layer %s is %s", d.Digest, got)
		}
	}
}

// Images without a trace cost nothing, and nobody who is refused has anything fetched.
func TestNothingToDo(t *testing.T) {
	w := newWorld(t, nil)
	w.image()
	c, _ := w.contents()
	plain := w.manifest(ocispec.Manifest{Layers: w.layers})
	traced := w.manifest(ocispec.Manifest{Layers: append(w.layers[:2:2], w.trace(c))})
	w.get("manifests/"+plain.Digest.String(), "")
	resp, err := http.Get(w.url + "/v2/team/app/manifests/" + traced.Digest.String())
	w.must(err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without credentials: %s", resp.Status)
	}
	if s := w.chain.Warm.Stats(); s.Traces != 0 || w.fetches() != 0 {
		t.Errorf("came to %+v and %d fetches", s, w.fetches())
	}
}

// Of an image no more is fetched than may be, and that is counted.
func TestLimits(t *testing.T) {
	w := newWorld(t, func(c *cacheconfig.Cache) {
		c.GC.Disk.MaxSize = 64 << 20
		c.Warm.Bandwidth = 64 << 20
		c.Warm.Again = cacheconfig.Duration(time.Nanosecond)
	})
	w.image()
	c, plan := w.contents()
	// A layer that the image does not have is left out.
	m := w.manifest(ocispec.Manifest{Layers: []ocispec.Descriptor{w.layers[0], w.trace(c)}})
	w.get("manifests/"+m.Digest.String(), "")
	if s := w.settle(1); s.Warmed != 1 || s.Partial != 1 {
		t.Errorf("came to %+v", s)
	}
	w.mu.Lock()
	n := w.fetched[plan.Layers[1].Digest.String()]
	w.mu.Unlock()
	if n != 0 {
		t.Errorf("%d requests for a layer that the image does not have", n)
	}
	// Looked at again, there is nothing left to fetch.
	before := w.fetches()
	w.get("manifests/"+m.Digest.String(), "")
	if s := w.settle(2); s.Warmed != 2 || w.fetches() != before {
		t.Errorf("looked at again: %+v, %d more requests", s, w.fetches()-before)
	}
}
