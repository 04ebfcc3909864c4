package attached_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/attached"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

var (
	image = digest.FromString("manifest")
	plan  = tracelayer.Member{Offset: 1024, Size: 100, Digest: digest.FromString("plan")}
	errIO = errors.New("boom")
)

// artifact is the manifest of a trace for a workload, made on a day.
func artifact(workload string, day int) ocispec.Manifest {
	is := labels.TraceBlob{Blob: digest.FromString(fmt.Sprint(workload, day)), BlobSize: 10_000, Plan: plan}
	m := ocispec.Manifest{
		ArtifactType: labels.TraceArtifact, Config: ocispec.DescriptorEmptyJSON, Subject: &ocispec.Descriptor{Digest: image},
		Layers:      []ocispec.Descriptor{{Digest: is.Blob, Size: is.BlobSize, Annotations: is.Annotations()}},
		Annotations: map[string]string{ocispec.AnnotationCreated: fmt.Sprintf("2026-01-%02dT00:00:00Z", day)},
	}
	if workload != "" {
		m.Annotations[labels.TraceWorkload] = workload
	}
	return m
}

// store has the manifests of artifacts, or not.
type store struct {
	t    *testing.T
	bare bool // list without annotations
	list []ocispec.Descriptor
	text map[digest.Digest][]byte

	mu   sync.Mutex
	read int
}

func newStore(t *testing.T, bare bool) *store {
	return &store{t: t, bare: bare, text: map[digest.Digest][]byte{}}
}

// add adds an artifact and returns its digest.
func (s *store) add(m ocispec.Manifest) digest.Digest {
	s.t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		s.t.Fatal(err)
	}
	d := ocispec.Descriptor{Digest: digest.FromBytes(text), Size: int64(len(text)), ArtifactType: m.ArtifactType}
	if !s.bare {
		d.Annotations = m.Annotations
	}
	s.list, s.text[d.Digest] = append(s.list, d), text
	return d.Digest
}

func (s *store) Read(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read++
	text, ok := s.text[d.Digest]
	if !ok {
		return nil, errIO
	}
	return text, nil
}

func both(t *testing.T, f func(t *testing.T, s *store)) {
	for name, bare := range map[string]bool{"annotated": false, "bare": true} {
		t.Run(name, func(t *testing.T) { f(t, newStore(t, bare)) })
	}
}

func TestChoose(t *testing.T) {
	both(t, func(t *testing.T, s *store) {
		s.add(artifact("", 1))
		s.add(artifact("web", 2))
		none := s.add(artifact("", 3))
		s.add(artifact("batch", 9))
		web := s.add(artifact("web", 4))
		for _, c := range []struct {
			workload string
			exact    bool
			want     digest.Digest
		}{{"", false, none}, {"", true, none}, {"web", false, web}, {"web", true, web}, {"x", false, none}, {"x", true, ""}} {
			s.read = 0
			got, ok, skipped, err := attached.Choose(t.Context(), s.Read, s.list, attached.Query{Subject: image, Workload: c.workload, Exact: c.exact})
			if ok != (c.want != "") || got.Artifact.Digest != c.want || len(skipped) > 0 || err != nil {
				t.Errorf("%q, %v: %v, %v, %v, %v; want %v", c.workload, c.exact, got.Artifact.Digest, ok, skipped, err, c.want)
			}
			if ok && (got.Plan != plan || got.Created.IsZero() || got.Layer.Size != 10_000) {
				t.Errorf("%+v", got)
			}
			if most := len(s.list); s.read > most || !s.bare && s.read > 1 {
				t.Errorf("%d manifests were read", s.read)
			}
		}
	})
}

// TestChooseSkips: what cannot be used is said, and the next best is taken.
func TestChooseSkips(t *testing.T) {
	for name, spoil := range map[string]func(s *store){
		"missing": func(s *store) { delete(s.text, s.add(artifact("web", 9))) },
		"large": func(s *store) {
			s.add(artifact("web", 9))
			s.list[len(s.list)-1].Size = registry.MaxManifestSize + 1
		},
		"no JSON": func(s *store) { s.text[s.add(artifact("web", 9))] = []byte("<html>") },
		"another subject": func(s *store) {
			m := artifact("web", 9)
			m.Subject = &ocispec.Descriptor{Digest: digest.FromString("other")}
			s.add(m)
		},
		"no subject": func(s *store) {
			m := artifact("web", 9)
			m.Subject = nil
			s.add(m)
		},
		"two layers": func(s *store) {
			m := artifact("web", 9)
			m.Layers = append(m.Layers, m.Layers[0])
			s.add(m)
		},
		"no trace layer": func(s *store) {
			m := artifact("web", 9)
			m.Layers[0].Annotations = nil
			s.add(m)
		},
		"no digest": func(s *store) {
			m := artifact("web", 9)
			m.Layers[0].Digest = "sha256:00"
			s.add(m)
		},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, s *store) {
				good := s.add(artifact("", 1))
				spoil(s)
				got, ok, skipped, err := attached.Choose(t.Context(), s.Read, s.list, attached.Query{Subject: image, Workload: "web"})
				if !ok || got.Artifact.Digest != good || len(skipped) != 1 || err != nil {
					t.Errorf("%v, %v, %v, %v", got.Artifact.Digest, ok, skipped, err)
				}
				all, skipped, err := attached.All(t.Context(), s.Read, s.list, image)
				if len(all) != 1 || len(skipped) != 1 || err != nil {
					t.Errorf("All = %v, %v, %v", all, skipped, err)
				}
				for _, why := range skipped {
					if !errors.Is(why, errIO) && !errors.Is(why, attached.ErrArtifact) {
						t.Errorf("skipped for %v", why)
					}
				}
			})
		})
	}
}

// TestChooseMany: the best of a long list is found wherever it is in it.
func TestChooseMany(t *testing.T) {
	s := newStore(t, false)
	for i := range 3 * attached.MaxRead {
		m := artifact("other", 1+i%20)
		m.Annotations["n"] = fmt.Sprint(i)
		s.add(m)
	}
	for i := range attached.MaxRead - 1 { // as many may be bad
		m := artifact("web", 2+i%20)
		m.Annotations["n"] = fmt.Sprint(i)
		delete(s.text, s.add(m))
	}
	want := s.add(artifact("web", 1))
	got, ok, skipped, err := attached.Choose(t.Context(), s.Read, s.list, attached.Query{Subject: image, Workload: "web"})
	if !ok || got.Artifact.Digest != want || len(skipped) != attached.MaxRead-1 || err != nil {
		t.Errorf("%v, %v, %d, %v", got.Artifact.Digest, ok, len(skipped), err)
	}
	all, skipped, err := attached.All(t.Context(), s.Read, s.list, image)
	if len(all)+len(skipped)-1 != attached.MaxRead || err != nil {
		t.Errorf("%d of all, %d skipped, %v", len(all), len(skipped), err)
	}
}

// TestListLies: what the list says of a manifest is only believed for the order.
func TestListLies(t *testing.T) {
	s := newStore(t, false)
	s.add(artifact("web", 1))
	s.list[0].Annotations = map[string]string{labels.TraceWorkload: "batch"}
	_, ok, skipped, err := attached.Choose(t.Context(), s.Read, s.list, attached.Query{Subject: image, Workload: "batch"})
	if ok || len(skipped) != 1 || !strings.Contains(skipped[0].Error(), `"web"`) || err != nil {
		t.Errorf("%v, %v, %v", ok, skipped, err)
	}
}

func TestCancelled(t *testing.T) {
	both(t, func(t *testing.T, s *store) {
		s.add(artifact("", 1))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		read := func(ctx context.Context, _ ocispec.Descriptor) ([]byte, error) { return nil, ctx.Err() }
		if _, ok, _, err := attached.Choose(ctx, read, s.list, attached.Query{Subject: image}); ok || !errors.Is(err, context.Canceled) {
			t.Errorf("Choose = %v, %v", ok, err)
		}
		if all, _, err := attached.All(ctx, read, s.list, image); all != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("All = %v, %v", all, err)
		}
	})
}

// FuzzParse: what is accepted can be asked for.
func FuzzParse(f *testing.F) {
	good, err := json.Marshal(artifact("web", 1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"layers": null, "annotations": {"dev.reprise.trace.workload": "x"}}`))
	f.Add([]byte(strings.ReplaceAll(string(good), "10000", "-1")))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := attached.Parse(ocispec.Descriptor{Digest: digest.FromBytes(text)}, text, image)
		if err != nil {
			if !errors.Is(err, attached.ErrArtifact) {
				t.Errorf("%v", err)
			}
			return
		}
		l, p := got.Layer, got.Plan
		if l.Digest.Validate() != nil || l.Size <= 0 || p.Offset < 0 || p.Size < 0 || p.Offset > l.Size-p.Size {
			t.Errorf("%+v", got)
		}
		if got.Artifact.Digest != digest.FromBytes(text) {
			t.Errorf("%+v", got)
		}
	})
}
