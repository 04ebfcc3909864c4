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

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/cmd/internal/convert"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/remote/blob"
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

// Ordinary layers that were stacked on an image with a trace are converted on
// what is below it, as if it had never been there.
func TestStackedOnTraceLayer(t *testing.T) {
	to := t.TempDir()
	base := mustRun(t, config(t), single(t, three()...), to+":base")
	c := content(t, to+":base", source.Config{})
	var m ocispec.Manifest
	document(t, c, c.Root, &m)
	var layers []layer
	for _, d := range m.Layers {
		text, err := os.ReadFile(to + "/blobs/sha256/" + d.Digest.Encoded())
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, layer{tar: text, annotations: d.Annotations})
	}
	top := gzipLayer(archive(map[string]int{"child": 5000, "etc/passwd": 10, "usr/bin": 70_003}))
	stacked := single(t, append(append(slices.Clone(layers), traceLayer(nil)), top)...)
	cfg := config(t)
	known := t.TempDir()
	cfg.Cache = convert.OpenCache(known)
	cfg.Compression.Algorithm = zfile.LZ4 // of what is converted
	r := mustRun(t, cfg, stacked, to+":1")
	wantStored(t, r, "present again", "present again", "present again", "uploaded")
	for i, l := range base.Images[0].Layers {
		if got := r.Images[0].Layers[i]; got.Digest != l.Digest || got.Digest != got.Source {
			t.Errorf("layer %d became %s, want %s", i, got.Digest, l.Digest)
		}
	}
	if len(r.Images[0].Dropped) != 1 {
		t.Errorf("dropped %q", r.Images[0].Dropped)
	}
	opens(t, to+":1", 4)
	// All of it converted at once is the same, but for the file system's UUID.
	all := append(three(), top)
	mustRun(t, config(t), single(t, all...), to+":2")
	a, b := device(t, to+":1"), device(t, to+":2")
	if n := len(a); n != len(b) || n == 0 {
		t.Fatalf("devices of %d and %d blocks", n, len(b))
	}
	other := 0
	for at, p := range a {
		if p != b[at] {
			other++
		}
	}
	if other > 1 {
		t.Errorf("%d of %d blocks differ", other, len(a))
	}
	// Again, and without the trace: nothing is left to do.
	wantStored(t, mustRun(t, cfg, stacked, to+":3"), "present again", "present again", "present again", "present again")
	again := mustRun(t, cfg, single(t, append(slices.Clone(layers), top)...), to+":4")
	if again.Digest != r.Digest {
		t.Errorf("with a trace %s, without %s", r.Digest, again.Digest)
	}
	// What the base says it was converted from is not remembered as true.
	if n := len(entries(t, known)); n != 1 {
		t.Errorf("%d layers are remembered", n)
	}
	// One that lies about being convertible on is an error, not an archive.
	lie := slices.Clone(layers)
	lie[1].tar = []byte("no layer")
	lie[1].annotations = labels.Converted{
		Blob: digest.FromBytes(lie[1].tar), BlobSize: 8, FSType: "erofs", SourceChain: base.Images[0].Layers[1].Chain,
		Converter: layers[1].annotations[labels.Converter],
	}.Annotations(nil)
	if r, err := run(t, config(t), single(t, append(lie, top)...), to+":5"); err == nil || !strings.Contains(err.Error(), "layer 1 (") || !strings.Contains(err.Error(), "can not be built on") {
		t.Errorf("%+v, %v", r, err)
	}
}

// device returns what is on the device of an image, by block.
func device(t *testing.T, arg string) map[int64]string {
	t.Helper()
	img, err := source.Open(t.Context(), arg, source.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	var readers []blob.ReaderAt
	for _, l := range img.Layers {
		readers = append(readers, l)
	}
	disk, err := backstore.Open(t.Context(), readers)
	if err != nil {
		t.Fatal(err)
	}
	all := map[int64]string{}
	for s := range disk.Segments() {
		p := make([]byte, s.Length*512)
		if err := blob.ReadFull(t.Context(), disk, p, s.Offset*512); err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(p); at += 512 {
			if block := string(p[at : at+512]); strings.Trim(block, "\x00") != "" {
				all[s.Offset*512+int64(at)] = block
			}
		}
	}
	return all
}
