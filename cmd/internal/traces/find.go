package traces

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// maxArtifacts is how many of the traces attached to an image are looked at.
const maxArtifacts = 64

// Find returns the recording of an image, of which platform selects a manifest,
// this host's if it is empty: that of its trace layer, or, if it has none or
// workload is not empty, the newest one attached to it for just that workload.
// The image has to stay open for as long as the recording is used.
func Find(ctx context.Context, image *source.Content, platform, workload string) (*Recording, error) {
	t, err := choose(ctx, image, platform)
	if err != nil {
		return nil, fmt.Errorf("looking for traces of %s: %w", image.Name, err)
	}
	if len(t.trace) > 0 && workload == "" {
		return FromImage(ctx, image, platform)
	}
	r, err := attachedTo(ctx, image, t, workload)
	if err != nil {
		return nil, fmt.Errorf("looking for traces of %s: %w", image.Name, err)
	}
	return r, nil
}

// attachedTo returns the newest recording that is attached to t for workload.
func attachedTo(ctx context.Context, image *source.Content, t target, workload string) (*Recording, error) {
	list, err := image.Referrers(ctx, t.doc.Desc.Digest, labels.TraceArtifact)
	if err != nil {
		return nil, err
	}
	var best ocispec.Manifest
	var others []string
	for _, d := range list[:min(len(list), maxArtifacts)] {
		m, err := artifactOf(ctx, image, d, t)
		if err != nil {
			return nil, fmt.Errorf("reading attached trace %s: %w", d.Digest, err)
		}
		key := m.Annotations[labels.TraceWorkload]
		switch {
		case key != workload:
			others = append(others, fmt.Sprintf("%q", key))
		case len(best.Layers) == 0 || created(m).After(created(best)):
			best = m
		}
	}
	switch {
	case len(best.Layers) > 0:
	case len(others) > 0:
		slices.Sort(others)
		return nil, fmt.Errorf("none for workload %q, there is %s", workload, strings.Join(slices.Compact(others), ", "))
	default:
		return nil, errors.New("it has no trace layer, and none is attached to it")
	}
	b, err := image.Open(best.Layers[0])
	if err != nil {
		return nil, err
	}
	r := &Recording{Name: image.Name, trust: true}
	if workload != "" {
		r.Name += " for " + workload
	}
	r.Time = created(best)
	if err := r.openLayer(ctx, b, image); err != nil {
		return nil, err
	}
	r.Layers = t.plan()
	if r.Plan != nil && Differences(r.Layers, r.Plan.Layers) != "" {
		r.note("the plan in %s is no use: it is of other layers than the image has", r.Name)
		r.Plan, r.Data, r.whole = nil, nil, nil
	}
	return r, nil
}

// created returns when an artifact was made, as it says; the zero time if it does
// not.
func created(m ocispec.Manifest) time.Time {
	at, _ := time.Parse(time.RFC3339, m.Annotations[ocispec.AnnotationCreated])
	return at
}

// artifactOf reads the manifest of a trace that refers to t.
func artifactOf(ctx context.Context, image *source.Content, desc ocispec.Descriptor, t target) (m ocispec.Manifest, err error) {
	text, err := image.Read(ctx, desc)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, err
	}
	switch {
	case len(m.Layers) != 1:
		return m, fmt.Errorf("it has %d layers", len(m.Layers))
	case m.Subject == nil || m.Subject.Digest != t.doc.Desc.Digest:
		return m, errors.New("it does not refer to the image")
	}
	return m, nil
}
