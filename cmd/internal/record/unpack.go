package record

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/snapshot/labels"
)

// unpacking is a layer that is to have a snapshot.
type unpacking struct {
	layer  ocispec.Descriptor
	diffID digest.Digest
	// chain and parent are chain IDs, parent "" of the bottom layer.
	chain, parent digest.Digest
	// more labels of the snapshot
	labels map[string]string
}

// unpackOld makes the snapshots of the image's layers that are not there. (The
// client's own Unpack tells the snapshotter nothing of a layer's annotations: it
// would take overlaybd layers for ordinary ones.)
func (r *recording) unpackOld(ctx context.Context) error {
	more := map[string]string{labels.ImageRef: r.cfg.Old, labels.ManifestDigest: r.old.manifest.Digest.String()}
	chain := r.old.chain()
	for i, l := range r.old.parsed.Layers {
		u := unpacking{layer: l, diffID: r.old.diffIDs[i], chain: chain[i], labels: more}
		if i > 0 {
			u.parent = chain[i-1]
		}
		if err := r.unpack(ctx, u); err != nil {
			return fmt.Errorf("layer %s: %w", l.Digest, err)
		}
	}
	return nil
}

// unpack makes the snapshot of a layer unless there is one.
func (r *recording) unpack(ctx context.Context, u unpacking) error {
	_, err := r.snapshots.Stat(ctx, u.chain.String())
	if err == nil || !errdefs.IsNotFound(err) {
		return err
	}
	told := snapshots.FilterInheritedLabels(u.layer.Annotations)
	if told == nil {
		told = map[string]string{}
	}
	told[labels.Target] = u.chain.String()
	told[labels.DiffID] = u.diffID.String()
	if u.parent != "" {
		told[labels.ParentChainID] = u.parent.String()
	}
	for k, v := range u.labels {
		told[k] = v
	}
	key := fmt.Sprintf(snapshots.UnpackKeyFormat, r.id, u.chain)
	mounts, err := r.snapshots.Prepare(ctx, key, u.parent.String(), snapshots.WithLabels(told))
	if errdefs.IsAlreadyExists(err) { // it is read from the registry
		_, err = r.snapshots.Stat(ctx, u.chain.String())
		return err
	}
	if err != nil {
		return fmt.Errorf("preparing a snapshot: %w", err)
	}
	applied, err := r.cfg.Client.DiffService().Apply(ctx, u.layer, mounts)
	switch {
	case errdefs.IsNotFound(err):
		err = fmt.Errorf("its content is not here: pull the image again: %w", err)
	case err == nil && applied.Digest != u.diffID:
		err = fmt.Errorf("unpacked, it has the diff ID %s, not %s", applied.Digest, u.diffID)
	case err == nil:
		err = r.snapshots.Commit(ctx, u.chain.String(), key, snapshots.WithLabels(told))
	}
	if err != nil {
		clean, cancel := cleaning(ctx)
		defer cancel()
		return errors.Join(err, r.snapshots.Remove(clean, key))
	}
	return nil
}
