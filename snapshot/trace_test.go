package snapshot_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

var testPlan = tracelayer.Member{Offset: 512, Size: 100, Digest: digest.FromString("plan")}

// traceLabels are those of a trace layer with a plan.
func traceLabels(more ...string) []string {
	out := append([]string{labels.Trace, "yes"}, more...)
	for k, v := range labels.WithPlan(testPlan) {
		out = append(out, k, v)
	}
	return out
}

// pullTrace provides a lazy trace layer, the last of names.
func (n *node) pullTrace(names ...string) string {
	n.t.Helper()
	if err := n.pullLayer(names, len(names)-1, traceLabels()...); !errdefs.IsAlreadyExists(err) {
		n.t.Fatalf("trace layer: %v, want ErrAlreadyExists", err)
	}
	return chainOf(names...)[len(names)-1]
}

// below returns the image below a container on top.
func (n *node) below(key, top string) backstore.Image {
	n.t.Helper()
	lowers := strings.Split(option(n.t, n.run(key, top), "lowerdir"), ":")
	return n.fake.image(lowers[len(lowers)-1])
}

// checkImage compares what is attached with names of layers and of a trace.
func checkImage(t *testing.T, img backstore.Image, trace string, layers ...string) {
	t.Helper()
	var got []digest.Digest
	for _, l := range img.Layers {
		got = append(got, l.Digest)
	}
	var want []digest.Digest
	for _, name := range layers {
		d, _ := layerOf(name)
		want = append(want, d)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("layers %v, want %v", got, layers)
	}
	switch d, size := layerOf(trace); {
	case trace == "" && img.Trace != nil:
		t.Errorf("trace %+v, want none", img.Trace)
	case trace == "":
	case img.Trace == nil:
		t.Errorf("no trace, want %s", trace)
	case img.Trace.Layer.Digest != d || img.Trace.Layer.Size != size:
		t.Errorf("trace %+v, want %s", img.Trace, trace)
	}
}

func TestLazyTrace(t *testing.T) {
	n := newNode(t)
	n.pull("base", "app")
	top := n.pullTrace("base", "app", "trace")
	told := n.fake.takePrefetched()
	if len(told) != 1 { // no manifest is known, so the other layers are no news
		t.Fatalf("Prefetch was told %+v", told)
	}
	checkImage(t, told[0], "trace", "base", "app")
	if len(n.fake.calls) > 0 {
		t.Errorf("a pull called devices: %v", n.fake.calls)
	}

	target := option(t, n.run("c", top), "lowerdir")
	img := n.fake.image(target)
	checkImage(t, img, "trace", "base", "app")
	if img.Trace.Plan != testPlan || img.Trace.Dir != "" || img.Ref != testRef {
		t.Errorf("trace %+v of %s", img.Trace, img.Ref)
	}
	if m, err := labels.Plan(img.Trace.Layer.Annotations); err != nil || m != testPlan {
		t.Errorf("annotations %v", img.Trace.Layer.Annotations)
	}
	if told := n.fake.takePrefetched(); len(told) != 1 || told[0].Trace == nil {
		t.Errorf("attaching told Prefetch %+v", told)
	}
	c, _ := config(t, target)
	lowers := c["lowers"].([]any)
	last := lowers[len(lowers)-1].(map[string]any)
	if c["accelerationLayer"] != true || len(lowers) != 3 || last["planSize"] != float64(100) || last["planOffset"] != float64(512) {
		t.Errorf("configuration %v", c)
	}

	// Attached once, it is not fetched ahead for every container.
	n.run("c2", top)
	if told := n.fake.takePrefetched(); len(told) != 0 {
		t.Errorf("a second container told Prefetch %+v", told)
	}
	// A pull of what is here may find it gone from the cache.
	n.pullTrace("base", "app", "trace")
	if told := n.fake.takePrefetched(); len(told) != 1 || told[0].Trace == nil {
		t.Errorf("a second pull told Prefetch %+v", told)
	}
	n.restart()
	if got := n.fake.recovered; len(got) != 1 || got[0].Image.Trace == nil || got[0].Image.Trace.Plan != testPlan {
		t.Errorf("to be recovered: %+v", got)
	}
}

// TestPullWithManifest: whoever looks for traces elsewhere hears of the first
// layer already.
func TestPullWithManifest(t *testing.T) {
	n := newNode(t)
	manifest := digest.FromString("manifest").String()
	names := []string{"base", "app"}
	for i := range names {
		if err := n.pullLayer(names, i, labels.ManifestDigest, manifest); !errdefs.IsAlreadyExists(err) {
			t.Fatal(err)
		}
		told := n.fake.takePrefetched()
		if len(told) != 1 || len(told[0].Layers) != i+1 || told[0].Layers[0].Annotations[labels.ManifestDigest] != manifest || told[0].Trace != nil {
			t.Errorf("layer %d told Prefetch %+v", i, told)
		}
	}
}

// TestOnlyTheTopmostLayerIsATrace: in every way something can come on top.
func TestOnlyTheTopmostLayerIsATrace(t *testing.T) {
	for how, trace := range map[string]func(n *node) string{
		"lazy": func(n *node) string { return n.pullTrace("base", "trace") },
		"unpacked": func(n *node) string {
			names := []string{"base", "trace"}
			top := chainOf(names...)[1]
			n.must(n.unpack(top, parentOf(names, 1), unpackLabels(names, 1, traceLabels(labels.ImageRef, "")...), map[string]string{"trace": "records"}))
			return top
		},
	} {
		t.Run(how, func(t *testing.T) {
			n := newNode(t)
			n.pull("base")
			top := trace(n)
			checkImage(t, n.below("c", top), "trace", "base")

			lazy := []string{"base", "trace", "app"}
			if err := n.pullLayer(lazy, 2); !errdefs.IsAlreadyExists(err) {
				t.Fatal(err)
			}
			checkImage(t, n.below("lazy", chainOf(lazy...)[2]), "", "base", "app")

			down := []string{"base", "trace", "down"}
			n.must(n.unpack("down", top, unpackLabels(down, 2, labels.Download, "download"), map[string]string{"overlaybd.commit": zfileMagic}))
			checkImage(t, n.below("d", "down"), "", "base", "down")

			checkImage(t, n.below("again", n.pullTrace("base", "trace", "trace2")), "trace2", "base")
			n.must(n.unpack("unpacked", top, unpackLabels([]string{"base", "trace", "trace3"}, 2, traceLabels(labels.ImageRef, "")...),
				map[string]string{"trace": "other records"}))
			checkImage(t, n.below("u", "unpacked"), "trace3", "base")

			// An ordinary layer is no part of the device, which stays as it is.
			n.must(n.unpack("plain", top, plainLabels("plain"), nil))
			checkImage(t, n.below("p", "plain"), "trace", "base")
		})
	}
}

func TestUnpackedTraceWithPlan(t *testing.T) {
	n := newNode(t)
	names := []string{"base", "trace"}
	n.pull("base")
	top := chainOf(names...)[1]
	files := map[string]string{"trace": "records", "trace.plan": "plan", "trace.data": "data"}
	// Without an image reference nothing can be read when needed.
	n.must(n.unpack(top, parentOf(names, 1), unpackLabels(names, 1, traceLabels(labels.ImageRef, "")...), files))
	told := n.fake.takePrefetched()
	if len(told) != 1 || told[0].Trace == nil || told[0].Trace.Dir != n.filesOf(top) || told[0].Trace.Plan != testPlan {
		t.Errorf("Prefetch was told %+v", told)
	}
	if img := n.below("c", top); img.Trace == nil || img.Trace.Dir != n.filesOf(top) {
		t.Errorf("attached %+v", img)
	}
}

func TestTraceMustBeWhatItsDiffIDSays(t *testing.T) {
	n := newNode(t)
	n.pull("base")
	err := n.pullLayer([]string{"base", "trace"}, 1, traceLabels(labels.DiffID, digest.FromString("another").String())...)
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("another diff ID: %v", err)
	}
	if err := n.pullLayer([]string{"trace"}, 0, traceLabels()...); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("at the bottom: %v", err)
	}
	// A plan that can't be: containerd gets the layer, as if it had none.
	bad := traceLabels()
	bad = append(bad, labels.PlanOffset, "7")
	if err := n.pullLayer([]string{"base", "trace"}, 1, bad...); err != nil {
		t.Errorf("a bad plan: %v", err)
	}
}

// TestTraceOrLayer: one chain ID can't be both.
func TestTraceOrLayer(t *testing.T) {
	n := newNode(t)
	n.pull("base", "x")
	if err := n.pullLayer([]string{"base", "x"}, 1, traceLabels()...); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "calls it a trace") {
		t.Errorf("a layer that turns into a trace: %v", err)
	}
	n.pullTrace("base", "y")
	if err := n.pullLayer([]string{"base", "y"}, 1); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "a trace in it") {
		t.Errorf("a trace that turns into a layer: %v", err)
	}
	// One that was unpacked and had no trace in it is here, for what it's worth.
	names := []string{"base", "z"}
	n.must(n.unpack(chainOf(names...)[1], parentOf(names, 1), unpackLabels(names, 1, labels.Trace, "yes"), nil))
	checkImage(t, n.below("c", n.pullTrace(names...)), "", "base")
}

// TestOldState: what versions without plans wrote is read as before.
func TestOldState(t *testing.T) {
	n := newNode(t)
	names := []string{"base", "trace"}
	n.pull("base")
	top := chainOf(names...)[1]
	n.must(n.unpack(top, parentOf(names, 1), unpackLabels(names, 1, labels.Trace, "yes"), map[string]string{"trace": "records"}))
	dir, id := n.filesOf(top), idOf(n, top)
	dgst, size := layerOf("base")
	old, err := json.Marshal(map[string]any{
		"repoBlobUrl": "https://registry.example:5000/v2/team/app/blobs",
		"lowers": []any{
			map[string]any{"dir": n.filesOf(chainOf("base")[0]), "digest": dgst, "size": size},
			map[string]any{"dir": dir},
		},
		"accelerationLayer": true,
	})
	n.must(err)
	n.must(os.WriteFile(filepath.Join(n.cfg.Root, "snapshots", id, "block", "config.v1.json"), old, 0o600))
	n.restart()
	img := n.below("c", top)
	checkImage(t, backstore.Image{Layers: img.Layers}, "", "base")
	if img.Trace == nil || img.Trace.Dir != dir || img.Trace.Plan != (tracelayer.Member{}) {
		t.Errorf("attached %+v", img.Trace)
	}
	// A trace that has gone is none.
	n.must(n.Remove(t.Context(), "c"))
	n.must(os.Remove(filepath.Join(dir, "trace")))
	checkImage(t, n.below("c", top), "", "base")
}

// TestTraceOfAnOlderPrepare: containerd unpacks into what a version prepared that
// knew no plans.
func TestTraceOfAnOlderPrepare(t *testing.T) {
	n := newNode(t)
	names := []string{"base", "trace"}
	n.pull("base")
	m, err := n.Prepare(t.Context(), "x", chainOf("base")[0], snapshots.WithLabels(unpackLabels(names, 1, labels.Trace, "yes")))
	n.must(err)
	lbls := unpackLabels(names, 1, traceLabels()...)
	_, err = n.Update(t.Context(), snapshots.Info{Name: "x", Labels: lbls}, "labels")
	n.must(err)
	n.restart()
	if again, err := n.Mounts(t.Context(), "x"); err != nil || fmt.Sprint(again) != fmt.Sprint(m) {
		t.Errorf("mounts %v, %v; want %v", again, err, m)
	}
	n.must(os.WriteFile(filepath.Join(m[0].Source, "trace"), []byte("records"), 0o644))
	n.must(n.Commit(t.Context(), chainOf(names...)[1], "x", snapshots.WithLabels(lbls)))
	checkImage(t, n.below("c", chainOf(names...)[1]), "trace", "base")
}

// TestTraceWithoutAnnotations: a plain pull with a client that passes no annotations
// on is told what a layer is by what is in it, where a trace can be at all.
func TestTraceWithoutAnnotations(t *testing.T) {
	const (
		slot = "\x20\x18\xEF\xC2 and so on"
		plan = "reprise.plan and so on"
	)
	for name, c := range map[string]struct {
		files   map[string]string
		parent  string
		isTrace bool
	}{
		"trace":              {map[string]string{"trace": slot}, "image", true},
		"all of it":          {map[string]string{"trace": "/bin/sh\n", "trace.plan": plan, "trace.data": "data"}, "image", true},
		"on another trace":   {map[string]string{"trace": slot}, "trace", true},
		"list without plan":  {map[string]string{"trace": "/bin/sh\n"}, "image", false},
		"plan that is none":  {map[string]string{"trace": "/bin/sh\n", "trace.plan": slot}, "image", false},
		"no slot":            {map[string]string{"trace.plan": plan}, "image", false},
		"among other files":  {map[string]string{"trace": slot, "file": "text"}, "image", false},
		"on ordinary layers": {map[string]string{"trace": slot}, "files", false},
		"on nothing":         {map[string]string{"trace": slot}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			image := n.pull("base", "app")
			parent := c.parent
			switch c.parent {
			case "image":
				parent = image
			case "trace":
				parent = n.pullTrace("base", "app", "older")
			case "files":
				n.must(n.unpack("files", image, nil, map[string]string{"file": "text"}))
			}
			n.must(n.unpack("top", parent, nil, c.files))
			lowers := strings.Split(option(t, n.run("c", "top"), "lowerdir"), ":")
			img := n.fake.image(lowers[len(lowers)-1])
			// Files are seen by the container, and a trace is not.
			seen := slices.ContainsFunc(slices.Collect(maps.Keys(c.files)), func(name string) bool {
				_, err := os.Stat(filepath.Join(lowers[0], name))
				return err == nil
			})
			if isTrace := img.Trace != nil && img.Trace.Dir != ""; isTrace != c.isTrace || seen == isTrace {
				t.Errorf("lowers %v, image %+v", lowers, img)
			}
			if c.isTrace {
				checkImage(t, backstore.Image{Layers: img.Layers}, "", "base", "app")
			}
		})
	}
	// A link is no file of a trace, wherever it leads.
	n := newNode(t)
	m, err := n.Prepare(t.Context(), "extract-1 link", n.pull("base"))
	n.must(err)
	n.must(os.WriteFile(filepath.Join(upperOf(t, m), "trace"), []byte(slot), 0o644))
	n.must(os.Symlink("trace", filepath.Join(upperOf(t, m), "trace.plan")))
	n.must(n.Commit(t.Context(), "link", "extract-1 link"))
	if img := n.below("c", "link"); img.Trace != nil {
		t.Errorf("attached %+v", img.Trace)
	}
}
