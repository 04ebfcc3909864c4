package snapshot

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"

	"github.com/reprise-containers/reprise/snapshot/labels"
)

// prepareLazy commits a layer that is to be read when needed under its target
// name and returns errdefs.ErrAlreadyExists. It needs neither network nor
// devices.
func (s *Snapshotter) prepareLazy(ctx context.Context, r request) error {
	done := fmt.Errorf("layer %s needs no unpacking: %w", r.labels.Blob, errdefs.ErrAlreadyExists)
	if err := checkIdentity(r.labels); err != nil {
		return err
	}
	layer, err := lazyLower(r)
	if err != nil {
		return err
	}
	if found, exists, err := s.findLazy(ctx, r, layer); err != nil || exists {
		if err == nil {
			s.prefetch(ctx, found.withClaims(r.labels))
		}
		return firstOf(err, done)
	}
	config, err := s.lazyImage(ctx, r, layer)
	if err != nil {
		return err
	}
	staged, err := s.dirs.stage(snapshots.KindCommitted)
	if err != nil {
		return err
	}
	if err := config.write(staged); err != nil {
		os.RemoveAll(staged) // it is emptied at start in any case
		return fmt.Errorf("describing layer %s: %w", r.labels.Blob, err)
	}
	err = s.place(ctx, staged, func(ctx context.Context) (string, error) {
		return s.commitLazy(ctx, r)
	})
	if errdefs.IsAlreadyExists(err) { // a concurrent request was faster
		_, _, other := s.findLazy(ctx, r, layer)
		err = firstOf(other, err)
	}
	if err == nil {
		s.prefetch(ctx, config)
	}
	return firstOf(err, done)
}

// lazyLower returns the lower of the layer that r is about.
func lazyLower(r request) (lower, error) {
	if r.labels.Trace {
		return traceLower(r.labels), nil
	}
	table, err := labels.Chunks(r.raw)
	return remoteLower(r.labels, table), err
}

// lazyImage returns the image that r and what is below it make. Only the topmost
// layer is ever a trace.
func (s *Snapshotter) lazyImage(ctx context.Context, r request, layer lower) (imageConfig, error) {
	if r.labels.Trace {
		below, err := s.imageBelowTrace(ctx, r.parent)
		return below.withTrace(layer).withClaims(r.labels), err
	}
	below, err := s.imageOn(ctx, r.parent)
	return below.with(layer).withClaims(r.labels), err
}

// checkIdentity refuses a lazy layer whose blob is not the one that its diff ID
// names. Snapshots are shared by chain ID, which is made of diff IDs, and those
// are what the image's config says. containerd compares them with what it
// unpacks, but it does not unpack this layer: an image could call a blob of its
// own by the diff ID of another image's layer, and so put it below that image.
// The blob is a tar archive that is not compressed as a whole, so its digest is
// its diff ID. A containerd that states no diff ID leaves this unchecked.
func checkIdentity(l labels.Labels) error {
	if l.DiffID == "" || l.DiffID == l.Blob {
		return nil
	}
	return fmt.Errorf("layer %s: the image's config has the diff ID %s for it, which is not its digest: nothing would check that they belong together: %w",
		l.Blob, l.DiffID, errdefs.ErrInvalidArgument)
}

// commitLazy adds the committed snapshot in one go. It needs a transaction.
func (s *Snapshotter) commitLazy(ctx context.Context, r request) (id string, err error) {
	name, exists, err := lazyName(ctx, r)
	if err != nil {
		return "", err
	}
	if exists { // by a concurrent request, after findLazy
		return "", fmt.Errorf("snapshot %s: %w", name, errdefs.ErrAlreadyExists)
	}
	if _, err := storage.CreateSnapshot(ctx, snapshots.KindActive, r.key, r.parent); err != nil {
		return "", err
	}
	return storage.CommitActive(ctx, r.key, name, snapshots.Usage{},
		snapshots.WithLabels(labels.WithRemote(r.raw)))
}

// findLazy reports whether the layer of r is committed already, and as what. If
// it is, but as another one than layer, the error says so.
func (s *Snapshotter) findLazy(ctx context.Context, r request, layer lower) (config imageConfig, exists bool, err error) {
	var id string
	err = s.read(ctx, func(ctx context.Context) error {
		var name string
		if name, exists, err = lazyName(ctx, r); err == nil && exists {
			id, _, _, err = storage.GetInfo(ctx, name)
		}
		return err
	})
	if err != nil || !exists {
		return config, false, err
	}
	if image, err := s.dirs.isImage(id); err != nil || !image {
		return config, true, err
	}
	config, err = readConfig(s.dirs.snapshot(id))
	if err != nil {
		return config, true, fmt.Errorf("reading what layer %s is made of: %w", r.labels.Blob, err)
	}
	if r.labels.Trace {
		return config, true, config.agreesOnTrace(layer)
	}
	return config, true, config.agrees(layer)
}

// lazyName returns the name under which the layer of r is committed, and
// whether it is already. This is its target, unless that names a snapshot
// with another parent: containerd's namespaces share what is committed under a
// target, but may have different snapshots for the layers below.
func lazyName(ctx context.Context, r request) (name string, exists bool, err error) {
	for _, name := range []string{r.labels.Target, r.labels.Target + " on " + r.parent} {
		_, info, _, err := storage.GetInfo(ctx, name)
		switch {
		case errdefs.IsNotFound(err):
			return name, false, nil
		case err != nil:
			return "", false, err
		case info.Kind == snapshots.KindCommitted && info.Parent == r.parent:
			return name, true, nil
		}
	}
	return "", false, fmt.Errorf("target %s names something else: %w", r.labels.Target, errdefs.ErrFailedPrecondition)
}

// firstOf returns the first error that is not nil.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
