package prefetch

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

const (
	// maxArtifacts is how many artifacts of one image are looked at.
	maxArtifacts = 16
	// foundFor is how long an answer is believed, failedFor how long nobody is
	// asked again after an error.
	foundFor  = 10 * time.Minute
	failedFor = time.Minute
	// maxAnswers is how many answers are kept.
	maxAnswers = 4096
)

// Registry is where referrers are; *registry.Client is one.
type Registry interface {
	Resolve(ctx context.Context, ref string) (ocispec.Descriptor, error)
	Referrers(ctx context.Context, ref string, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error)
	Fetch(ctx context.Context, ref string, desc ocispec.Descriptor) (io.ReadCloser, error)
}

// Finder finds traces that refer to an image from outside of it.
type Finder struct {
	registry Registry
	workload string

	mu      sync.Mutex
	answers map[subject]answer
}

// subject is an image manifest in a repository.
type subject struct {
	repository string
	manifest   digest.Digest
}

// answer is what was found for a subject.
type answer struct {
	layers []ocispec.Descriptor  // of the image, without a trace layer
	trace  *backstore.TraceLayer // nil: there is none
	until  time.Time             // it is believed
}

// NewFinder returns a Finder that asks r. Of several traces it takes one for
// workload, or else one for none; of several of these, the newest.
func NewFinder(r Registry, workload string) *Finder {
	return &Finder{registry: r, workload: workload, answers: make(map[subject]answer)}
}

// Find returns img, of which layers may still be missing, with all of its layers
// and the trace that a referrer of its manifest has; ok is false if none has one.
// Two calls for one manifest at a time may both ask.
func (f *Finder) Find(ctx context.Context, img backstore.Image, manifest digest.Digest) (_ backstore.Image, ok bool, err error) {
	named, err := reference.ParseNormalizedNamed(img.Ref)
	if err != nil {
		return img, false, fmt.Errorf("parsing reference %q: %w", img.Ref, err)
	}
	s := subject{named.Name(), manifest}
	a, known := f.known(s)
	if !known {
		a, err = f.ask(ctx, img.Ref, manifest)
		a.until = time.Now().Add(foundFor)
		if err != nil {
			a.until = time.Now().Add(failedFor)
			err = fmt.Errorf("looking for traces of %s: %w", img.Ref, err)
		}
		f.note(s, a)
	}
	if err != nil || a.trace == nil {
		return img, false, err
	}
	return complete(img, manifest, a), true, nil
}

func (f *Finder) known(s subject) (answer, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, ok := f.answers[s]
	return a, ok && time.Now().Before(a.until)
}

func (f *Finder) note(s subject, a answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.answers) >= maxAnswers {
		clear(f.answers)
	}
	f.answers[s] = a
}

// complete returns img with the layers of its manifest and a trace. Of layers that
// it has, more is known than the manifest says.
func complete(img backstore.Image, manifest digest.Digest, a answer) backstore.Image {
	have := make(map[digest.Digest]backstore.Layer)
	for _, l := range img.Layers {
		have[l.Digest] = l
	}
	out := img
	out.Layers, out.Trace = nil, a.trace
	for _, d := range a.layers {
		l, ok := have[d.Digest]
		if !ok || l.Size != d.Size {
			l = backstore.Layer{Digest: d.Digest, Size: d.Size, Annotations: map[string]string{labels.ManifestDigest: manifest.String()}}
			if ref, err := labels.Chunks(d.Annotations); err == nil {
				for k, v := range labels.WithChunks(ref) {
					l.Annotations[k] = v
				}
			}
		}
		out.Layers = append(out.Layers, l)
	}
	return out
}

// ask asks the registry. The image's manifest is asked for at the same time as
// its referrers: each round trip is one that the replay begins later.
func (f *Finder) ask(ctx context.Context, ref string, manifest digest.Digest) (answer, error) {
	var a answer
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		a.layers, err = f.layers(ctx, ref, manifest)
		return err
	})
	g.Go(func() (err error) {
		a.trace, err = f.trace(ctx, ref, manifest)
		return err
	})
	if err := g.Wait(); err != nil {
		return answer{}, err
	}
	return a, nil
}

// trace returns the trace among the referrers of manifest that is to be replayed,
// nil if there is none.
func (f *Finder) trace(ctx context.Context, ref string, manifest digest.Digest) (*backstore.TraceLayer, error) {
	all, err := f.registry.Referrers(ctx, ref, manifest, labels.TraceArtifact)
	if err != nil {
		return nil, err
	}
	if all, err = f.annotated(ctx, ref, all); err != nil {
		return nil, err
	}
	for _, desc := range f.choose(all) {
		artifact, err := f.manifest(ctx, ref, desc)
		if err != nil {
			return nil, fmt.Errorf("reading artifact %s: %w", desc.Digest, err)
		}
		if trace := traceOf(artifact, manifest); trace != nil {
			return trace, nil
		}
	}
	return nil, nil
}

// layers returns the layers of the device of the image with this manifest.
func (f *Finder) layers(ctx context.Context, ref string, manifest digest.Digest) ([]ocispec.Descriptor, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, err
	}
	desc, err := f.registry.Resolve(ctx, named.Name()+"@"+manifest.String())
	if err != nil {
		return nil, err
	}
	image, err := f.manifest(ctx, ref, desc)
	if err != nil {
		return nil, fmt.Errorf("reading manifest %s: %w", manifest, err)
	}
	return slices.DeleteFunc(image.Layers, func(d ocispec.Descriptor) bool { return labels.IsTrace(d.Annotations) }), nil
}

// annotated returns artifacts with their annotations, which a list need not have.
func (f *Finder) annotated(ctx context.Context, ref string, artifacts []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	artifacts = slices.Clone(artifacts[:min(len(artifacts), maxArtifacts)])
	for i, d := range artifacts {
		if d.Annotations != nil {
			continue
		}
		m, err := f.manifest(ctx, ref, d)
		if err != nil {
			return nil, fmt.Errorf("reading artifact %s: %w", d.Digest, err)
		}
		artifacts[i].Annotations = m.Annotations
	}
	return artifacts, nil
}

// choose returns those of artifacts that may be for the workload, the best first.
func (f *Finder) choose(artifacts []ocispec.Descriptor) []ocispec.Descriptor {
	rank := func(d ocispec.Descriptor) int {
		switch d.Annotations[labels.TraceWorkload] {
		case f.workload:
			return 0
		case "":
			return 1
		}
		return 2
	}
	fit := slices.DeleteFunc(artifacts, func(d ocispec.Descriptor) bool { return rank(d) == 2 })
	slices.SortStableFunc(fit, func(a, b ocispec.Descriptor) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), created(b).Compare(created(a)))
	})
	return fit
}

// created returns when an artifact was made, as it says; the zero time if it does
// not.
func created(d ocispec.Descriptor) time.Time {
	t, _ := time.Parse(time.RFC3339, d.Annotations[ocispec.AnnotationCreated])
	return t
}

// traceOf returns the trace layer of an artifact that refers to manifest, nil if
// it has none that can be used.
func traceOf(artifact ocispec.Manifest, manifest digest.Digest) *backstore.TraceLayer {
	if artifact.Subject == nil || artifact.Subject.Digest != manifest {
		return nil
	}
	for _, d := range artifact.Layers {
		if !labels.IsTrace(d.Annotations) || d.Digest.Validate() != nil || d.Size <= 0 {
			continue
		}
		t := &backstore.TraceLayer{Layer: backstore.Layer{Digest: d.Digest, Size: d.Size}}
		// Where a bad plan is can be looked up as if nothing said it.
		if plan, err := labels.Plan(d.Annotations); err == nil && plan.Offset+plan.Size <= d.Size {
			t.Plan = plan
			t.Layer.Annotations = labels.WithPlan(plan)
		}
		return t
	}
	return nil
}

// manifest fetches and parses a manifest.
func (f *Finder) manifest(ctx context.Context, ref string, desc ocispec.Descriptor) (m ocispec.Manifest, err error) {
	if desc.Size > registry.MaxManifestSize {
		return m, fmt.Errorf("%d bytes are too many for a manifest", desc.Size)
	}
	r, err := f.registry.Fetch(ctx, ref, desc)
	if err != nil {
		return m, err
	}
	text, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return m, err
	}
	return m, json.Unmarshal(text, &m)
}
