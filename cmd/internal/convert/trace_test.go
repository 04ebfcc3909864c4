package convert_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/remote/registry/registrytest"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// traceLayer is a trace layer with annotations as overlaybd's, and more.
func traceLayer(more map[string]string) layer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(w.WriteHeader(&tar.Header{Name: "trace", Mode: 0o444, Size: 5}))
	_, err := w.Write([]byte("/etc\n"))
	must(err)
	must(w.Close())
	l := plainLayer(b.Bytes())
	t := labels.TraceBlob{Blob: digest.FromBytes(l.tar), BlobSize: int64(len(l.tar)), FSType: "erofs"}
	l.annotations = t.Annotations()
	for k, v := range more {
		l.annotations[k] = v
	}
	return l
}

// A trace layer is dropped wherever it lies: what is above and below it becomes
// what it becomes without.
func TestTraceLayerIsDropped(t *testing.T) {
	plain := three()
	want := mustRun(t, config(t), single(t, plain...), t.TempDir()).Digest
	for name, layers := range map[string][]layer{
		"on top":    append(slices.Clone(plain), traceLayer(nil)),
		"below one": slices.Insert(slices.Clone(plain), 2, traceLayer(nil)),
		"two":       slices.Insert(append(slices.Clone(plain), traceLayer(nil)), 1, traceLayer(nil)),
	} {
		cfg := config(t)
		var notes []string
		cfg.Note = func(s string) { notes = append(notes, s) }
		r := mustRun(t, cfg, single(t, layers...), t.TempDir())
		dropped := len(layers) - len(plain)
		if r.Digest != want || len(r.Images[0].Layers) != len(plain) || len(r.Images[0].Dropped) != dropped ||
			len(notes) != dropped || !strings.Contains(notes[0], "is dropped") {
			t.Errorf("%s: %s with %d layers, %d dropped, notes %q; want %s", name, r.Digest, len(r.Images[0].Layers), len(r.Images[0].Dropped), notes, want)
		}
		if r.Images[0].SourceManifest == r.Images[0].Manifest {
			t.Errorf("%s: nothing changed", name)
		}
	}
	if r, err := run(t, config(t), single(t, traceLayer(nil)), t.TempDir()); err == nil {
		t.Errorf("an image that is a trace and nothing else: %+v", r)
	}
}

// With --oci, what is converted refers to the source as it is, which is kept
// with its trace layer.
func TestTraceLayerOfKeptSource(t *testing.T) {
	cfg := config(t)
	cfg.Referrer = true
	from, to := single(t, append(three(), traceLayer(nil))...), t.TempDir()
	r := mustRun(t, cfg, from, to)
	c := content(t, to, source.Config{})
	var kept, converted ocispec.Manifest
	document(t, c, c.Root, &kept)
	document(t, c, ocispec.Descriptor{Digest: r.Digest}, &converted)
	if r.Tagged != r.SourceDigest || len(kept.Layers) != 4 || len(converted.Layers) != 3 || converted.Subject.Digest != r.SourceDigest {
		t.Errorf("%+v; kept %+v, converted %+v", r, kept, converted)
	}
}

// The overlaybd image with a trace is the one without it, after converting: in
// a layout and in a registry, alone and in an index.
func TestOverlaybdWithTrace(t *testing.T) {
	golden := "../../../../shared/golden/images/"
	if _, err := os.Stat(golden); err != nil {
		t.Skip("no golden images")
	}
	want := content(t, golden+"busybox-obd", source.Config{}).Root.Digest
	r := mustRun(t, config(t), golden+"busybox-obd-trace", t.TempDir()+":1")
	if r.Digest != want || len(r.Images) != 1 || !r.Images[0].Copied || len(r.Images[0].Dropped) != 1 || len(r.Images[0].Layers) != 3 {
		t.Errorf("%+v, want %s", r, want)
	}
	host, remote := registrytest.Start(t, ""), newRemote(t)
	r = remote.mustConvert(config(t), golden+"busybox-obd-trace", host+"/app:1")
	wantStored(t, r, "copied again", "copied again", "copied again")
	if d, err := remote.client.Resolve(t.Context(), host+"/app:1"); err != nil || d.Digest != want {
		t.Errorf("%+v, %v; want %s", d, err, want)
	}
}

// A base that is given or known, or is what the destination is now, may have a
// trace on top: its layers are taken, but not the trace, even if that claims to
// be a converted layer.
func TestTraceLayerIsNoBase(t *testing.T) {
	b := newBuilder(t)
	base := three()[:2]
	child := three()
	b.tag(map[string]ocispec.Descriptor{"base": b.image(amd64, base...), "child": b.image(amd64, child...)})
	to := t.TempDir()
	first := mustRun(t, config(t), b.dir+":base", to+":base")
	want := mustRun(t, config(t), b.dir+":child", t.TempDir())

	// The converted base with a trace, as record-trace makes it.
	c := content(t, to+":base", source.Config{})
	var m ocispec.Manifest
	document(t, c, c.Root, &m)
	recorded := newBuilder(t)
	var layers []layer
	for _, d := range m.Layers {
		text, err := os.ReadFile(to + "/blobs/sha256/" + d.Digest.Encoded())
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, layer{tar: text, annotations: d.Annotations})
	}
	lie := map[string]string{
		labels.SourceChain: want.Images[0].Layers[2].Chain.String(), labels.Converter: m.Layers[0].Annotations[labels.Converter],
		labels.ChunksRoot: m.Layers[0].Annotations[labels.ChunksRoot], labels.ChunksOffset: "512", labels.ChunksSize: "64",
	}
	layers = append(layers, traceLayer(lie))
	recorded.tag(map[string]ocispec.Descriptor{"1": recorded.image(amd64, layers...)})

	cfg := config(t)
	cfg.Known = []*source.Content{content(t, recorded.dir+":1", source.Config{})}
	r := mustRun(t, cfg, b.dir+":child", t.TempDir())
	got := fmt.Sprint(stored(r))
	if r.Digest != want.Digest || got != "[copied again copied again uploaded]" {
		t.Errorf("%s as %s, want %s", r.Digest, got, want.Digest)
	}
	if first.Images[0].Layers[1].Digest != r.Images[0].Layers[1].Digest {
		t.Error("the base was not reused")
	}
	// Converted as it is, it is the base.
	if again := mustRun(t, config(t), recorded.dir+":1", t.TempDir()); again.Images[0].Manifest == "" || len(again.Images[0].Layers) != 2 || !again.Images[0].Copied {
		t.Errorf("%+v", again.Images[0])
	}
}
