package prefetch_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/files"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/prefetch"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

// TestReplay: from wherever the trace layer is, afterwards the image starts
// without its registry.
func TestReplay(t *testing.T) {
	for name, place := range map[string]func(w *world, c tracelayer.Contents) *backstore.TraceLayer{
		"remote": func(w *world, c tracelayer.Contents) *backstore.TraceLayer { return w.trace(c) },
		"remote, without data": func(w *world, c tracelayer.Contents) *backstore.TraceLayer {
			plan, err := tracelayer.DecodePlan(c.Plan)
			w.must(err)
			for i := range plan.Extents {
				plan.Extents[i].Stored = 0
			}
			c.Plan, err = plan.Encode()
			w.must(err)
			c.Data, c.DataSize = nil, 0
			return w.trace(c)
		},
		"remote, plan not annotated": func(w *world, c tracelayer.Contents) *backstore.TraceLayer {
			tr := w.trace(c)
			tr.Plan, tr.Layer.Annotations = tracelayer.Member{}, nil
			return tr
		},
		"unpacked": func(w *world, c tracelayer.Contents) *backstore.TraceLayer {
			return &backstore.TraceLayer{Dir: w.unpack(c)}
		},
		"unpacked, with digest": func(w *world, c tracelayer.Contents) *backstore.TraceLayer {
			return &backstore.TraceLayer{Dir: w.unpack(c), Plan: tracelayer.Member{Digest: digest.FromBytes(c.Plan)}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			img := w.image()
			img.Trace = place(w, w.contents(img))
			p := w.run(nil)
			p.Prefetch(img)
			o := w.next()
			if o.Outcome != prefetch.Replayed || o.err != nil || o.stats.Prefetched.Extents == 0 || o.stats.Failed.Extents+o.stats.Invalid.Extents+o.stats.Corrupt.Extents > 0 {
				t.Fatalf("%+v", o)
			}
			w.offline(img)

			// What is here is not fetched again, nor is the plan.
			w.idle(p)
			before := w.requests
			p.Prefetch(img)
			if o := w.next(); o.Outcome != prefetch.Replayed || o.stats.Prefetched.Extents > 0 || o.stats.Present.Extents == 0 {
				t.Errorf("the second time: %+v", o)
			}
			if w.requests != before && name != "remote, plan not annotated" {
				t.Errorf("%d requests the second time", w.requests-before)
			}
		})
	}
}

// TestTraceWithoutPlan: as upstream's; its ranges are looked up.
func TestTraceWithoutPlan(t *testing.T) {
	w := newWorld(t)
	img := w.image()
	c := w.contents(img)
	c.Plan, c.Data, c.DataSize = nil, nil, 0
	for name, trace := range map[string]*backstore.TraceLayer{
		"unpacked": {Dir: w.unpack(c)},
		"remote":   w.trace(c),
	} {
		img.Trace = trace
		w.run(nil).Prefetch(img)
		if o := w.next(); o.Outcome != prefetch.Replayed || o.err != nil || o.stats.Prefetched.Extents+o.stats.Present.Extents == 0 {
			t.Errorf("%s: %+v", name, o)
		}
	}
	w.offline(img)
}

func TestInvalid(t *testing.T) {
	w := newWorld(t)
	img := w.image()
	good := w.contents(img)
	data := good.Data.(*bytes.Buffer).Bytes()
	fresh := func() tracelayer.Contents {
		c := good
		c.Data = bytes.NewReader(data)
		return c
	}
	broken := fresh()
	broken.Plan = bytes.Clone(broken.Plan)
	broken.Plan[40] ^= 1
	link := w.unpack(fresh())
	w.must(os.Rename(filepath.Join(link, "trace.plan"), filepath.Join(link, "real")))
	w.must(os.Symlink("real", filepath.Join(link, "trace.plan")))
	noTrace := fresh()
	noTrace.Slot, noTrace.Plan, noTrace.Data = []byte("a\x00b"), nil, nil
	damaged := fresh()
	damaged.Slot = bytes.Clone(damaged.Slot)
	damaged.Slot[30] ^= 1
	damaged.Plan, damaged.Data = nil, nil
	for name, trace := range map[string]*backstore.TraceLayer{
		"checksum of the plan":  w.trace(broken),
		"digest of the plan":    {Layer: w.trace(fresh()).Layer, Plan: tracelayer.Member{Offset: 512, Size: 100, Digest: digest.FromString("x")}},
		"unpacked, digest":      {Dir: w.unpack(fresh()), Plan: tracelayer.Member{Digest: digest.FromString("x")}},
		"unpacked, link":        {Dir: link},
		"zero bytes in a list":  {Dir: w.unpack(noTrace)},
		"checksum of the trace": {Dir: w.unpack(damaged)},
		"no tar archive":        {Layer: backstore.Layer{Digest: img.Layers[0].Digest, Size: img.Layers[0].Size}},
	} {
		t.Run(name, func(t *testing.T) {
			img := img
			img.Trace = trace
			w.run(nil).Prefetch(img)
			if o := w.next(); o.Outcome != prefetch.Invalid || o.err == nil {
				t.Errorf("%+v", o)
			}
		})
	}
}

func TestFailed(t *testing.T) {
	w := newWorld(t)
	img := w.image()
	trace := w.trace(w.contents(img))
	w.set(func() { delete(w.content, trace.Layer.Digest.String()) })
	for name, trace := range map[string]*backstore.TraceLayer{
		"blob that is gone":      trace,
		"directory that is gone": {Dir: "/nonexistent"},
		"plan beyond the blob":   {Layer: trace.Layer, Plan: tracelayer.Member{Offset: 1 << 40, Size: 100, Digest: digest.FromString("x")}},
	} {
		img.Trace = trace
		w.run(nil).Prefetch(img)
		if o := w.next(); o.Outcome != prefetch.Failed || o.err == nil {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// TestForeignPlan: what a plan says of other layers is skipped.
func TestForeignPlan(t *testing.T) {
	w := newWorld(t)
	img := w.image()
	img.Trace = w.trace(w.contents(img))
	img.Layers = img.Layers[:1]
	w.run(nil).Prefetch(img)
	if o := w.next(); o.Outcome != prefetch.Replayed || o.err != nil || o.stats.Invalid.Extents == 0 || o.stats.Prefetched.Extents == 0 {
		t.Errorf("%+v", o)
	}
}

func TestLocal(t *testing.T) {
	w := newWorld(t)
	img := w.image()
	img.Trace = w.trace(w.contents(img))
	for i := range img.Layers {
		img.Layers[i].File = chain3 + "L0.lz4-4k.tar"
	}
	before := w.requests
	w.run(nil).Prefetch(img)
	if o := w.next(); o.Outcome != prefetch.Local || w.requests != before {
		t.Errorf("%+v, %d requests", o, w.requests-before)
	}
}

// TestNothingToDo: images without anything to replay cost nothing.
func TestNothingToDo(t *testing.T) {
	w := newWorld(t)
	img := w.image()
	p := w.run(nil)
	p.Prefetch(img)
	p.Prefetch(backstore.Image{})
	img.Layers[0].Annotations[labels.ManifestDigest] = digest.FromString("m").String()
	p.Prefetch(img) // nobody looks for referrers
	img.Ref = "Not A Reference"
	p.Prefetch(img)
	if !p.Idle() {
		t.Error("something is done")
	}
}

// TestOnce: an image is worked on once at a time, and others meanwhile.
func TestOnce(t *testing.T) {
	w := newWorld(t)
	img := w.image()
	img.Trace = w.trace(w.contents(img))
	local := img
	local.Trace = &backstore.TraceLayer{Dir: "/nonexistent"}
	gate := make(chan struct{})
	w.set(func() { w.gate = gate })
	p := w.run(nil)
	for range 20 {
		p.Prefetch(img)
	}
	p.Prefetch(local)
	if o := w.next(); o.Outcome != prefetch.Failed {
		t.Errorf("another image: %+v", o)
	}
	w.set(func() { w.gate = nil })
	close(gate)
	if o := w.next(); o.Outcome != prefetch.Replayed {
		t.Errorf("%+v", o)
	}
	w.idle(p)
	if n := len(w.outcomes); n > 1 { // what was asked for while it was being worked on is done by that
		t.Errorf("%d more outcomes", n)
	}
}

// goldenImage puts an image of upstream's tools into the registry.
func (w *world) golden(name string) (img backstore.Image, trace []byte) {
	w.t.Helper()
	dir, err := os.Getwd()
	w.must(err)
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
	}
	dir = filepath.Join(dir, "..", "shared", "golden", "images", name)
	index, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		w.t.Skip("the golden images are not here")
	}
	blobAt := func(d digest.Digest) []byte {
		data, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", d.Encoded()))
		w.must(err)
		return data
	}
	var i ocispec.Index
	var m ocispec.Manifest
	w.must(json.Unmarshal(index, &i))
	w.must(json.Unmarshal(blobAt(i.Manifests[0].Digest), &m))
	img.Ref = w.ref
	for _, d := range m.Layers {
		data := blobAt(d.Digest)
		if labels.IsTrace(d.Annotations) {
			trace = data
			continue
		}
		w.put(data)
		img.Layers = append(img.Layers, backstore.Layer{Digest: d.Digest, Size: d.Size, Annotations: d.Annotations})
	}
	return img, trace
}

// TestUpstreamsTrace replays a trace that upstream's tools recorded.
func TestUpstreamsTrace(t *testing.T) {
	w := newWorld(t)
	img, layer := w.golden("busybox-obd-trace")
	found, err := tracelayer.ReadLayer(t.Context(), bytesOf(layer))
	w.must(err)
	slot := layer[found.Slot.Off:][:found.Slot.Size]
	img.Trace = &backstore.TraceLayer{Dir: w.unpack(tracelayer.Contents{Slot: slot})}
	w.run(nil).Prefetch(img)
	if o := w.next(); o.Outcome != prefetch.Replayed || o.err != nil || o.stats.Prefetched.Extents == 0 || o.stats.Failed.Extents > 0 {
		t.Fatalf("%+v", o)
	}
	// Every recorded read is answered without the registry.
	w.set(func() { w.down = true })
	trace, err := tracelayer.Decode(slot)
	w.must(err)
	var streams []blob.ReaderAt
	for _, l := range img.Layers {
		b, err := w.chain.Open(w.ref, l.Descriptor())
		w.must(err)
		s, err := backstore.Stream(t.Context(), b)
		w.must(err)
		streams = append(streams, s)
	}
	for _, r := range trace {
		if _, err := streams[r.Layer].ReadAt(t.Context(), make([]byte, r.Count), r.Off); err != nil {
			t.Fatalf("record %+v: %v", r, err)
		}
	}
}

// TestSkippedReads: reads that the layers do not have are left out, and that is
// said.
func TestSkippedReads(t *testing.T) {
	w := newWorld(t)
	img := w.image()
	trace := w.start(img)
	last := int64(1) << 40
	trace = append(trace, tracelayer.Record{Op: tracelayer.Read, Layer: 7, Count: 512}, tracelayer.Record{Op: tracelayer.Read, Off: last, Count: 512})
	img.Trace = &backstore.TraceLayer{Dir: w.unpack(tracelayer.Contents{Slot: trace.Encode()})}
	w.run(nil).Prefetch(img)
	if o := w.next(); o.Outcome != prefetch.Replayed || o.err != nil || o.stats.Prefetched.Extents == 0 {
		t.Fatalf("%+v", o)
	}
	w.told(fmt.Sprintf("2 of the %d reads", len(trace)))
}

func TestPriorityList(t *testing.T) {
	w := newWorld(t)
	img, _ := w.golden("busybox-obd")
	list := "/bin/busybox\n/no such file\n/etc/\n"
	img.Trace = &backstore.TraceLayer{Dir: w.unpack(tracelayer.Contents{Slot: []byte(list)})}
	w.run(nil).Prefetch(img)
	if o := w.next(); o.Outcome != prefetch.Listed || o.err != nil {
		t.Fatalf("%+v", o)
	}
	w.told("1 of the 3 files")
	w.set(func() { w.down = true })
	var layers []blob.ReaderAt
	for _, l := range img.Layers {
		b, err := w.chain.Open(w.ref, l.Descriptor())
		w.must(err)
		layers = append(layers, b)
	}
	dev, err := backstore.Open(t.Context(), layers)
	w.must(err)
	ranges, missing, err := files.Ranges(t.Context(), dev, strings.Split(strings.TrimSpace(list), "\n"))
	if err != nil || len(missing) != 1 || len(ranges) == 0 {
		t.Fatalf("ranges %v, missing %v, %v", ranges, missing, err)
	}
	for _, r := range ranges {
		if _, err := dev.ReadAt(t.Context(), make([]byte, r.Size), r.Off); err != nil {
			t.Errorf("range %+v: %v", r, err)
		}
	}
}

// TestPolicy: a layer has to have a chunk table; a trace layer, of which nothing
// is read, has not.
func TestPolicy(t *testing.T) {
	w := newWorld(t)
	img := w.image()
	img.Trace = w.trace(w.contents(img))
	strict := chain.New(w.client, chain.Config{Verify: chain.VerifyRequired})
	b, err := strict.OpenTrace(w.ref, img.Trace.Layer.Descriptor())
	w.must(err)
	plan, err := chain.ReadPlan(t.Context(), b, img.Trace.Plan)
	if err != nil || digest.FromBytes(plan) != img.Trace.Plan.Digest {
		t.Errorf("%d bytes, %v", len(plan), err)
	}
	if _, err := strict.Open(w.ref, img.Trace.Layer.Descriptor()); err == nil {
		t.Error("a layer without a chunk table is opened")
	}
}
