package traces

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/reprise-containers/reprise/cmd/internal/attached"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// ErrNoTrace is in the chain of errors about images that have no trace, or none of
// the kind that was asked for.
var ErrNoTrace = errors.New("there is no trace")

// Find returns the recording of an image, of which platform selects a manifest,
// this host's if it is empty: that of its trace layer, or, if it has none or
// workload is not empty, the newest one attached to it for just that workload.
// The image has to stay open for as long as the recording is used.
func Find(ctx context.Context, image *source.Content, platform, workload string) (*Recording, error) {
	return find(ctx, image, platform, attached.Query{Workload: workload, Exact: true})
}

// Take returns the recording of an image that is to be attached to another one for
// workload: that of its trace layer, or, if it has none, the newest one attached to
// it for that workload, or else for none. All else is as with Find.
func Take(ctx context.Context, image *source.Content, platform, workload string) (*Recording, error) {
	return find(ctx, image, platform, attached.Query{Workload: workload})
}

func find(ctx context.Context, image *source.Content, platform string, q attached.Query) (*Recording, error) {
	t, err := choose(ctx, image, platform)
	if err != nil {
		return nil, fmt.Errorf("looking for traces of %s: %w", image.Name, err)
	}
	if len(t.trace) > 0 && (q.Workload == "" || !q.Exact) {
		r, err := fromImage(ctx, image, t)
		if err != nil {
			return nil, fmt.Errorf("taking the trace of %s: %w", image.Name, err)
		}
		return r, nil
	}
	r, err := attachedTo(ctx, image, t, q)
	if err != nil {
		return nil, fmt.Errorf("looking for traces of %s: %w", image.Name, err)
	}
	return r, nil
}

// attachedTo returns the recording attached to t that q asks for.
func attachedTo(ctx context.Context, image *source.Content, t target, q attached.Query) (*Recording, error) {
	q.Subject = t.doc.Desc.Digest
	list, err := image.Referrers(ctx, q.Subject, labels.TraceArtifact)
	if err != nil {
		return nil, err
	}
	best, ok, skipped, err := attached.Choose(ctx, image.Read, list, q)
	if err != nil {
		return nil, err
	}
	if !ok {
		all, _, err := attached.All(ctx, image.Read, list, q.Subject)
		return nil, errors.Join(append([]error{none(all, q), err}, skipped...)...)
	}
	b, err := image.Open(best.Layer)
	if err != nil {
		return nil, err
	}
	r := &Recording{Name: image.Name, Time: best.Created, trust: true}
	if best.Workload != "" {
		r.Name += " for " + best.Workload
	}
	for _, err := range skipped {
		r.note("%v", err)
	}
	if err := r.openLayer(ctx, b, image); err != nil {
		return nil, err
	}
	r.of(t.plan())
	return r, nil
}

// none says which traces there are in place of the one that q asks for.
func none(all []attached.Trace, q attached.Query) error {
	if len(all) == 0 {
		return fmt.Errorf("%w: it has no trace layer, and none is attached to it", ErrNoTrace)
	}
	var others []string
	for _, t := range all {
		others = append(others, fmt.Sprintf("%q", t.Workload))
	}
	slices.Sort(others)
	return fmt.Errorf("%w for workload %q, there is %s", ErrNoTrace, q.Workload, strings.Join(slices.Compact(others), ", "))
}
