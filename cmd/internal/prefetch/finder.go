package prefetch

import (
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
	"github.com/reprise-containers/reprise/cmd/internal/attached"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

const (
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
	bad    error                 // what was left out, though it might have been better
	until  time.Time             // it is believed
}

// NewFinder returns a Finder that asks r. Of several traces it takes one for
// workload, or else one for none; of several of these, the newest.
func NewFinder(r Registry, workload string) *Finder {
	return &Finder{registry: r, workload: workload, answers: make(map[subject]answer)}
}

// Find returns img, of which layers may still be missing, with all of its layers
// and the trace that a referrer of its manifest has; ok is false if none has one.
// With ok, an error says which referrers were left out that may have had a better
// one. What is remembered is said once. Two calls for one manifest at a time may
// both ask.
func (f *Finder) Find(ctx context.Context, img backstore.Image, manifest digest.Digest) (_ backstore.Image, ok bool, err error) {
	named, err := reference.ParseNormalizedNamed(img.Ref)
	if err != nil {
		return img, false, fmt.Errorf("parsing reference %q: %w", img.Ref, err)
	}
	s := subject{named.Name(), manifest}
	a, known := f.known(s)
	if !known {
		a, err = f.ask(ctx, img.Ref, manifest)
		if err == nil {
			err = a.bad
		}
		a.until = time.Now().Add(foundFor)
		if err != nil {
			a.until = time.Now().Add(failedFor) // it may be mended
			err = fmt.Errorf("looking for traces of %s: %w", img.Ref, err)
		}
		f.note(s, a)
	}
	if a.trace == nil {
		return img, false, err
	}
	return complete(img, manifest, a), true, err
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
		a.trace, a.bad, err = f.trace(ctx, ref, manifest)
		return err
	})
	if err := g.Wait(); err != nil {
		return answer{}, err
	}
	return a, nil
}

// trace returns the trace among the referrers of manifest that is to be replayed,
// nil if there is none, and what is wrong with better ones.
func (f *Finder) trace(ctx context.Context, ref string, manifest digest.Digest) (_ *backstore.TraceLayer, bad, err error) {
	list, err := f.registry.Referrers(ctx, ref, manifest, labels.TraceArtifact)
	if err != nil {
		return nil, nil, err
	}
	read := func(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) { return f.read(ctx, ref, desc) }
	best, ok, skipped, err := attached.Choose(ctx, read, list, attached.Query{Subject: manifest, Workload: f.workload})
	if err != nil || !ok {
		return nil, errors.Join(skipped...), err
	}
	return &backstore.TraceLayer{
		Layer: backstore.Layer{Digest: best.Layer.Digest, Size: best.Layer.Size, Annotations: labels.WithPlan(best.Plan)},
		Plan:  best.Plan,
	}, errors.Join(skipped...), nil
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

// manifest fetches and parses the manifest of an image.
func (f *Finder) manifest(ctx context.Context, ref string, desc ocispec.Descriptor) (m ocispec.Manifest, err error) {
	if desc.Size > registry.MaxManifestSize {
		return m, fmt.Errorf("%d bytes are too many for a manifest", desc.Size)
	}
	text, err := f.read(ctx, ref, desc)
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(text, &m)
}

// read fetches what desc describes.
func (f *Finder) read(ctx context.Context, ref string, desc ocispec.Descriptor) ([]byte, error) {
	r, err := f.registry.Fetch(ctx, ref, desc)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(r)
	return text, errors.Join(err, r.Close())
}
