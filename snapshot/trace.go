package snapshot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

// traceLower returns the lower of the trace layer that l describes, without its
// directory.
func traceLower(l labels.Labels) lower {
	t := lower{
		Digest: l.Blob, Size: l.BlobSize,
		PlanDigest: l.Plan.Digest, PlanOffset: l.Plan.Offset, PlanSize: l.Plan.Size,
	}
	if t.Size == 0 { // without annotations a blob cannot be found
		return lower{}
	}
	return t
}

// trace returns the trace layer l. Whether it was unpacked is looked at now.
func (l lower) trace() *backstore.TraceLayer {
	t := &backstore.TraceLayer{
		Layer: backstore.Layer{Digest: l.Digest, Size: l.Size},
		Plan:  tracelayer.Member{Offset: l.PlanOffset, Size: l.PlanSize, Digest: l.PlanDigest},
	}
	if t.Plan.Size > 0 {
		t.Layer.Annotations = labels.WithPlan(t.Plan)
	}
	if l.Dir != "" && isTrace(l.Dir) {
		t.Dir = l.Dir
	}
	return t
}

// isTrace reports whether dir is an unpacked trace layer: it has a slot.
func isTrace(dir string) bool {
	st, err := os.Lstat(filepath.Join(dir, tracelayer.SlotName))
	return err == nil && st.Mode().IsRegular()
}

// imageBelowTrace returns the configuration that a trace layer on top of parent
// builds on. It isn't a layer of the device, so there must be one below it.
func (s *Snapshotter) imageBelowTrace(ctx context.Context, parent string) (imageConfig, error) {
	below, err := s.imageOn(ctx, parent)
	if err == nil && len(below.Lowers) == 0 {
		err = fmt.Errorf("there is no overlaybd layer below it: %w", errdefs.ErrFailedPrecondition)
	}
	return below, err
}

// describeTrace looks at a trace layer that containerd unpacked.
func (s *Snapshotter) describeTrace(ctx context.Context, c commitment) (imageConfig, error) {
	below, err := s.imageBelowTrace(ctx, c.info.Parent)
	if err != nil {
		return imageConfig{}, err
	}
	config := below.withClaims(c.labels)
	if !isTrace(s.dirs.fs(c.id)) {
		// The image runs as well without it, only slower.
		log.G(ctx).WithField("layer", c.labels.Blob).Warn("the trace layer has no file named trace, it is ignored")
		return config.withoutTrace(), nil
	}
	trace := traceLower(c.labels)
	trace.Dir = s.dirs.fs(c.id)
	return config.withTrace(trace), nil
}

// prefetch begins to fetch what the image of config needs to start, if the
// devices can. That the image is broken concerns those who attach it.
func (s *Snapshotter) prefetch(ctx context.Context, config imageConfig) {
	if s.images.prefetcher == nil || !config.Acceleration && config.Manifest == "" {
		return // there is nothing that says what to fetch, nor where to look
	}
	img, err := config.image()
	if err != nil {
		log.G(ctx).WithError(err).WithField("image", config.ref).Debug("nothing is fetched ahead for an image")
		return
	}
	s.images.prefetcher.Prefetch(img)
}
