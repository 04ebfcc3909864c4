package attached

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/remote/registry"
)

const (
	// MaxRead is how many artifacts of one image are read.
	MaxRead = 64
	// parallel is how many of them are read at once.
	parallel = 4
)

// Read returns the content of a descriptor, which is compared with its digest.
type Read func(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)

// Query says which of the traces of an image is wanted.
type Query struct {
	// Subject is the digest of the image's manifest.
	Subject digest.Digest
	// Workload is the use of the image that it is to be for.
	Workload string
	// Exact takes none for another workload; otherwise one for no workload does
	// if there is none for Workload.
	Exact bool
}

// Choose returns the best trace among the artifacts in list: for the workload, and
// the newest of these. ok is false if there is none. Ranked are all of them, by the
// annotations in the list; only those without annotations, and then the best, are
// read. skipped says what was wrong with those that would have been better, or may
// have been. The error is that of ctx.
func Choose(ctx context.Context, read Read, list []ocispec.Descriptor, q Query) (best Trace, ok bool, skipped []error, err error) {
	var ranked, bare []ocispec.Descriptor
	for _, d := range list {
		if d.Annotations == nil {
			bare = append(bare, d)
		} else if q.rank(d) < unfit {
			ranked = append(ranked, d)
		}
	}
	known, skipped, err := All(ctx, read, bare, q.Subject)
	if err != nil {
		return Trace{}, false, nil, err
	}
	parsed := make(map[digest.Digest]Trace)
	for _, t := range known {
		if q.rank(t.Artifact) < unfit {
			parsed[t.Artifact.Digest] = t
			ranked = append(ranked, t.Artifact)
		}
	}
	slices.SortStableFunc(ranked, func(a, b ocispec.Descriptor) int {
		return cmp.Or(cmp.Compare(q.rank(a), q.rank(b)), newest(a, b))
	})
	for _, d := range ranked[:min(len(ranked), MaxRead)] {
		if t, ok := parsed[d.Digest]; ok {
			return t, true, skipped, nil
		}
		t, err := one(ctx, read, d, q.Subject)
		if err == nil && q.rank(t.Artifact) != q.rank(d) {
			err = fmt.Errorf("artifact %s: %w: it is for workload %q, and listed for %q", d.Digest, ErrArtifact, t.Workload, workloadOf(d))
		}
		switch {
		case ctx.Err() != nil:
			return Trace{}, false, nil, context.Cause(ctx)
		case err != nil:
			skipped = append(skipped, err)
			continue
		}
		return t, true, skipped, nil
	}
	return Trace{}, false, skipped, nil
}

// All returns the traces among the artifacts in list, the newest first; of a longer
// list, the MaxRead that seem to be the newest. skipped says what was wrong with
// the others. The error is that of ctx.
func All(ctx context.Context, read Read, list []ocispec.Descriptor, subject digest.Digest) (all []Trace, skipped []error, err error) {
	list = slices.SortedStableFunc(slices.Values(list), newest)
	if n := len(list) - MaxRead; n > 0 {
		skipped = append(skipped, fmt.Errorf("%d artifacts are not looked at, for there are %d", n, len(list)))
		list = list[:MaxRead]
	}
	found, errs := make([]Trace, len(list)), make([]error, len(list))
	var g errgroup.Group
	g.SetLimit(parallel)
	for i, d := range list {
		g.Go(func() error {
			found[i], errs[i] = one(ctx, read, d, subject)
			return nil
		})
	}
	_ = g.Wait() // it is none but ctx's
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	for i := range list {
		if errs[i] != nil {
			skipped = append(skipped, errs[i])
			continue
		}
		all = append(all, found[i])
	}
	slices.SortStableFunc(all, func(a, b Trace) int { return newest(a.Artifact, b.Artifact) })
	return all, skipped, nil
}

// one reads the artifact that d describes. The error names it.
func one(ctx context.Context, read Read, d ocispec.Descriptor, subject digest.Digest) (Trace, error) {
	if d.Size > registry.MaxManifestSize {
		return Trace{}, fmt.Errorf("artifact %s: %w: %d bytes are too many for a manifest", d.Digest, ErrArtifact, d.Size)
	}
	text, err := read(ctx, d)
	if err != nil {
		return Trace{}, fmt.Errorf("reading artifact %s: %w", d.Digest, err)
	}
	t, err := Parse(d, text, subject)
	if err != nil {
		return Trace{}, fmt.Errorf("artifact %s: %w", d.Digest, err)
	}
	return t, nil
}

// unfit is the rank of what a query does not take.
const unfit = 2

// rank returns how well an artifact is what q wants by its annotations; less is
// better.
func (q Query) rank(d ocispec.Descriptor) int {
	switch w := workloadOf(d); {
	case w == q.Workload:
		return 0
	case w == "" && !q.Exact:
		return 1
	}
	return unfit
}

// newest orders artifacts; the order of the registry counts for nothing, so that
// all nodes take the same one.
func newest(a, b ocispec.Descriptor) int {
	return cmp.Or(createdOf(b).Compare(createdOf(a)), cmp.Compare(a.Digest, b.Digest))
}
