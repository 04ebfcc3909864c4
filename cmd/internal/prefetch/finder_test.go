package prefetch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/cmd/internal/attached"
	"github.com/reprise-containers/reprise/cmd/internal/prefetch"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

// putManifest puts a document into the registry.
func (w *world) putManifest(m ocispec.Manifest) ocispec.Descriptor {
	w.t.Helper()
	m.Versioned, m.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest
	text, err := json.Marshal(m)
	w.must(err)
	desc := w.put(text)
	desc.MediaType = m.MediaType
	return desc
}

// manifest puts the manifest of img into the registry.
func (w *world) manifest(img backstore.Image, more ...ocispec.Descriptor) ocispec.Descriptor {
	var m ocispec.Manifest
	for _, l := range img.Layers {
		m.Layers = append(m.Layers, l.Descriptor())
	}
	m.Layers = append(m.Layers, more...)
	return w.putManifest(m)
}

// attach makes a trace a referrer of a manifest.
func (w *world) attach(subject ocispec.Descriptor, t *backstore.TraceLayer, workload, created string) ocispec.Descriptor {
	w.t.Helper()
	m := ocispec.Manifest{ArtifactType: labels.TraceArtifact, Config: ocispec.DescriptorEmptyJSON, Subject: &subject}
	is := labels.TraceBlob{Blob: t.Layer.Digest, BlobSize: t.Layer.Size, Plan: t.Plan}
	m.Layers = []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: is.Blob, Size: is.BlobSize, Annotations: is.Annotations()}}
	m.Annotations = map[string]string{ocispec.AnnotationCreated: created}
	if workload != "" {
		m.Annotations[labels.TraceWorkload] = workload
	}
	desc := w.putManifest(m)
	desc.ArtifactType, desc.Annotations = m.ArtifactType, m.Annotations
	w.set(func() { w.referrers = append(w.referrers, desc) })
	return desc
}

// TestReferrer: what is fetched ahead begins with the first layer of a pull.
func TestReferrer(t *testing.T) {
	w := newWorld(t)
	img := w.image()
	manifest := w.manifest(img)
	w.attach(manifest, w.trace(w.contents(img)), "", "2026-01-02T03:04:05Z")
	p := w.run(prefetch.NewFinder(w.client, ""))
	first := backstore.Image{Ref: w.ref, Layers: []backstore.Layer{img.Layers[0]}}
	first.Layers[0].Annotations = map[string]string{labels.ManifestDigest: manifest.Digest.String()}
	for k, v := range img.Layers[0].Annotations {
		first.Layers[0].Annotations[k] = v
	}
	p.Prefetch(first)
	if o := w.next(); o.Outcome != prefetch.Replayed || o.err != nil || o.stats.Prefetched.Extents == 0 || o.stats.Invalid.Extents > 0 {
		t.Fatalf("%+v", o)
	}
	w.offline(img)
	// The answer is remembered.
	w.idle(p)
	before := w.requests
	p.Prefetch(first)
	if o := w.next(); o.Outcome != prefetch.Replayed || o.stats.Prefetched.Extents > 0 || w.requests != before {
		t.Errorf("the second time: %+v, %d requests", o, w.requests-before)
	}
}

func TestFinder(t *testing.T) {
	w := newWorld(t)
	img := w.image()
	c := w.contents(img)
	trace := w.trace(c)
	// Each trace of a workload is another one.
	other := func(name string) *backstore.TraceLayer {
		w.t.Helper()
		return w.trace(tracelayer.Contents{Slot: []byte("/" + name + "\n")})
	}
	old, newer, web, web2, batch := other("old"), other("new"), other("web"), other("web2"), other("batch")
	manifest := w.manifest(img, ocispec.Descriptor{Digest: trace.Layer.Digest, Size: trace.Layer.Size,
		Annotations: labels.TraceBlob{Blob: trace.Layer.Digest, BlobSize: trace.Layer.Size, Plan: trace.Plan}.Annotations()})
	w.attach(manifest, old, "", "2026-01-01T00:00:00Z")
	w.attach(manifest, web, "web", "2026-01-01T00:00:00Z")
	w.attach(manifest, newer, "", "2026-01-02T00:00:00Z")
	w.attach(manifest, batch, "batch", "2026-03-01T00:00:00Z")
	w.attach(manifest, web2, "web", "2026-01-03T00:00:00+02:00")
	for _, bare := range []bool{false, true} { // the list has no annotations
		for workload, want := range map[string]*backstore.TraceLayer{"": newer, "web": web2, "batch": batch, "none": newer} {
			w.set(func() {
				for i := range w.referrers {
					if bare {
						w.referrers[i].Annotations = nil
					}
				}
			})
			got, ok, err := prefetch.NewFinder(w.client, workload).Find(t.Context(), img, manifest.Digest)
			if err != nil || !ok || got.Trace.Layer.Digest != want.Layer.Digest {
				t.Errorf("workload %q: %+v, %v, %v; want %s", workload, got.Trace, ok, err, want.Layer.Digest)
			}
			if len(got.Layers) != len(img.Layers) { // the image's own trace layer is none
				t.Errorf("layers %+v", got.Layers)
			}
		}
	}
}

func TestFinderKnowsLayers(t *testing.T) {
	w := newWorld(t)
	img := w.image()
	manifest := w.manifest(img)
	w.attach(manifest, w.trace(w.contents(img)), "", "")
	have := backstore.Image{Ref: w.ref, Layers: []backstore.Layer{img.Layers[1]}}
	have.Layers[0].File = "/local"
	got, ok, err := prefetch.NewFinder(w.client, "").Find(t.Context(), have, manifest.Digest)
	if err != nil || !ok || len(got.Layers) != 2 || got.Layers[1].File != "/local" || got.Layers[0].File != "" {
		t.Fatalf("%+v, %v, %v", got, ok, err)
	}
	if table, err := labels.Chunks(got.Layers[0].Annotations); err != nil || table.IsZero() {
		t.Errorf("the chunk table of a layer is lost: %v", got.Layers[0].Annotations)
	}
	if got.Layers[0].Annotations[labels.ManifestDigest] != manifest.Digest.String() {
		t.Errorf("annotations %v", got.Layers[0].Annotations)
	}
}

// TestFinderSkips: one artifact that cannot be read does not hide the others, and
// it is said that it was left out.
func TestFinderSkips(t *testing.T) {
	for name, spoil := range map[string]func(w *world, d digest.Digest){
		"missing": func(w *world, d digest.Digest) { delete(w.content, d.String()) },
		"large": func(w *world, _ digest.Digest) {
			w.referrers[len(w.referrers)-1].Size = registry.MaxManifestSize + 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			img := w.image()
			manifest := w.manifest(img)
			good := w.trace(w.contents(img))
			w.attach(manifest, good, "", "2026-01-01T00:00:00Z")
			bad := w.attach(manifest, w.trace(tracelayer.Contents{Slot: []byte("/x\n")}), "", "2026-01-02T00:00:00Z")
			w.set(func() { spoil(w, bad.Digest) })
			f := prefetch.NewFinder(w.client, "")
			got, ok, err := f.Find(t.Context(), img, manifest.Digest)
			if !ok || got.Trace.Layer.Digest != good.Layer.Digest || err == nil || !strings.Contains(err.Error(), bad.Digest.String()) {
				t.Errorf("%+v, %v, %v", got.Trace, ok, err)
			}
			if _, ok, err := f.Find(t.Context(), img, manifest.Digest); !ok || err != nil {
				t.Errorf("remembered: %v, %v", ok, err)
			}
			p := w.run(prefetch.NewFinder(w.client, ""))
			for i := range img.Layers {
				a := maps.Clone(img.Layers[i].Annotations)
				a[labels.ManifestDigest] = manifest.Digest.String()
				img.Layers[i].Annotations = a
			}
			p.Prefetch(img)
			if o := w.next(); o.Outcome != prefetch.Replayed || o.err != nil {
				t.Errorf("%+v", o)
			}
			w.told(bad.Digest.String())
		})
	}
}

// TestFinderMany: the registry's order of a long list counts for nothing.
func TestFinderMany(t *testing.T) {
	w := newWorld(t)
	img := w.image()
	manifest := w.manifest(img)
	for i := range 100 {
		w.attach(manifest, w.trace(tracelayer.Contents{Slot: fmt.Append(nil, "/", i, "\n")}), fmt.Sprint(i), "2026-01-02T00:00:00Z")
	}
	for _, workload := range []string{"0", "50", "99"} {
		got, ok, err := prefetch.NewFinder(w.client, workload).Find(t.Context(), img, manifest.Digest)
		if !ok || err != nil {
			t.Errorf("workload %s: %+v, %v, %v", workload, got.Trace, ok, err)
		}
	}
}

// TestFinderRefuses: what does not refer to the image, or is no trace.
func TestFinderRefuses(t *testing.T) {
	for name, change := range map[string]func(w *world, img backstore.Image, manifest ocispec.Descriptor){
		"none": func(*world, backstore.Image, ocispec.Descriptor) {},
		"another workload": func(w *world, img backstore.Image, m ocispec.Descriptor) {
			w.attach(m, w.trace(w.contents(img)), "x", "")
		},
		"another subject": func(w *world, img backstore.Image, _ ocispec.Descriptor) {
			w.attach(w.put([]byte("other")), w.trace(w.contents(img)), "", "")
		},
		"another type": func(w *world, img backstore.Image, m ocispec.Descriptor) {
			w.attach(m, w.trace(w.contents(img)), "", "")
			w.referrers[0].ArtifactType = labels.TablesArtifact
		},
		"no trace in it": func(w *world, _ backstore.Image, m ocispec.Descriptor) {
			desc := w.putManifest(ocispec.Manifest{ArtifactType: labels.TraceArtifact, Subject: &m, Layers: []ocispec.Descriptor{m}})
			desc.ArtifactType = labels.TraceArtifact
			w.referrers = append(w.referrers, desc)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			img := w.image()
			manifest := w.manifest(img)
			change(w, img, manifest)
			got, ok, err := prefetch.NewFinder(w.client, "").Find(t.Context(), img, manifest.Digest)
			if wrong := name == "another subject" || name == "no trace in it"; ok || wrong != errors.Is(err, attached.ErrArtifact) || !wrong && err != nil {
				t.Errorf("%+v, %v, %v", got.Trace, ok, err)
			}
		})
	}
	w := newWorld(t)
	img := w.image()
	manifest := w.manifest(img)
	w.set(func() { w.down = true })
	f := prefetch.NewFinder(w.client, "")
	if _, ok, err := f.Find(t.Context(), img, manifest.Digest); err == nil || ok {
		t.Errorf("a registry that is down: %v, %v", ok, err)
	}
	// It is not asked for every layer of a pull.
	before := w.requests
	if _, ok, _ := f.Find(t.Context(), img, manifest.Digest); ok || w.requests != before {
		t.Errorf("asked again: %v, %d requests", ok, w.requests-before)
	}
}

// documents is a registry with one artifact, whatever is in it.
type documents struct{ artifact, image []byte }

func (d documents) desc(text []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: labels.TraceArtifact, Digest: digest.FromBytes(text), Size: int64(len(text))}
}

func (d documents) Resolve(context.Context, string) (ocispec.Descriptor, error) {
	return d.desc(d.image), nil
}

func (d documents) Referrers(context.Context, string, digest.Digest, string) ([]ocispec.Descriptor, error) {
	return []ocispec.Descriptor{d.desc(d.artifact)}, nil
}

func (d documents) Fetch(_ context.Context, _ string, desc ocispec.Descriptor) (io.ReadCloser, error) {
	text := d.artifact
	if desc.Digest == digest.FromBytes(d.image) {
		text = d.image
	}
	return io.NopCloser(bytes.NewReader(text)), nil
}

// FuzzArtifact: whatever somebody pushed, what is made of it can be asked for.
func FuzzArtifact(f *testing.F) {
	manifest := digest.FromString("manifest")
	is := labels.TraceBlob{Blob: digest.FromString("trace"), BlobSize: 10_000, Plan: tracelayer.Member{Offset: 1024, Size: 100, Digest: digest.FromString("plan")}}
	good, err := json.Marshal(ocispec.Manifest{
		Subject: &ocispec.Descriptor{Digest: manifest},
		Layers:  []ocispec.Descriptor{{Digest: is.Blob, Size: is.BlobSize, Annotations: is.Annotations()}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, []byte(`{"layers": [{"digest": "sha256:00", "size": -1}]}`))
	f.Add([]byte(`{"layers": null, "annotations": {"dev.reprise.trace.workload": "x"}}`), []byte("{}"))
	f.Fuzz(func(t *testing.T, artifact, image []byte) {
		img := backstore.Image{Ref: "registry.example/app:1", Layers: []backstore.Layer{{Digest: manifest, Size: 1}}}
		got, ok, err := prefetch.NewFinder(documents{artifact, image}, "").Find(t.Context(), img, manifest)
		if !ok {
			return
		}
		if err != nil {
			t.Errorf("the one there is was taken, and left out: %v", err)
		}
		l, p := got.Trace.Layer, got.Trace.Plan
		if l.Digest.Validate() != nil || l.Size <= 0 || p.Offset < 0 || p.Size < 0 || p.Offset+p.Size > l.Size {
			t.Errorf("trace %+v", got.Trace)
		}
	})
}
