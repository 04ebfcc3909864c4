package obdconv

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/cmd/internal/transfer"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// layer is a layer on its way.
type layer struct {
	number int // from the bottom, 0
	source ocispec.Descriptor
	diffID digest.Digest
	// chain and parent are chain IDs in the source; parent is "" if what is below
	// was not converted with this layer, and has UUIDs of its own.
	chain, parent digest.Digest
	snapshot      string // the committed one
	kept          bool   // it is an overlaybd layer already
	out           ocispec.Descriptor
	bar           *terminal.Bar
}

// wrap says in an error which layer it is about.
func (l *layer) wrap(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("layer %d (%s): %w", l.number, l.source.Digest, err)
}

// overlaybd returns how many layers, from the bottom on, are overlaybd layers
// already: others may lie on them, as committing a container makes it.
func overlaybd(descs []ocispec.Descriptor) (int, error) {
	kept := 0
	for i, d := range descs {
		l, err := labels.Parse(d.Annotations)
		switch {
		case err != nil:
			return 0, fmt.Errorf("layer %d (%s): %w", i, d.Digest, err)
		case l.Turbo:
			return 0, fmt.Errorf("layer %d (%s) is a TurboOCI layer: convert the image that it was made of", i, d.Digest)
		case l.Blob != "" && i > kept:
			return 0, fmt.Errorf("layer %d (%s) is an overlaybd layer, and there are others below it", i, d.Digest)
		case l.Blob != "":
			kept++
		}
	}
	if kept == len(descs) {
		return 0, fmt.Errorf("it is an overlaybd image already, there is nothing to convert: %w", errdefs.ErrAlreadyExists)
	}
	return kept, nil
}

// layers returns the layers of the source, of which the first ones are kept.
func (c *conversion) layers(kept int) ([]*layer, error) {
	all := make([]*layer, len(c.source.DiffIDs))
	parent := digest.Digest("")
	for i, chain := range c.source.Chain() {
		l := &layer{
			number: i, source: c.source.Manifest.Layers[i], diffID: c.source.DiffIDs[i], chain: chain, parent: parent,
			snapshot: fmt.Sprintf("%s-%d", c.id, i),
		}
		if i < kept {
			if l.diffID != l.source.Digest {
				return nil, l.wrap(fmt.Errorf("its diff ID is %s: an overlaybd layer is not compressed as a whole", l.diffID))
			}
			l.kept, l.out, l.snapshot = true, l.source, chain.String()
		} else {
			l.bar = c.cfg.Bars.Add(transfer.Short(l.source.Digest))
			l.bar.Phase("waiting", 0)
			parent = chain
		}
		all[i] = l
	}
	return all, nil
}

// base makes sure that the layers that stay are here, to be built on.
func (c *conversion) base(ctx context.Context, layers []*layer, kept int) error {
	if kept == 0 {
		return nil
	}
	top := layers[kept-1]
	_, err := c.snapshots.Stat(ctx, top.snapshot)
	if errdefs.IsNotFound(err) {
		err = fmt.Errorf("snapshotter %s has not unpacked it: pull the image with ctr rpull first: %w", c.cfg.Snapshotter, err)
	}
	return top.wrap(err)
}

// build unpacks layers, one on the other, and leaves the rest of each to
// goroutines of g.
func (c *conversion) build(ctx context.Context, g *errgroup.Group, layers []*layer, kept int) error {
	below := ""
	for i, l := range layers {
		if i >= kept {
			if err := c.unpack(ctx, l, below); err != nil {
				return l.wrap(err)
			}
			g.Go(func() error { return l.wrap(c.store(ctx, l)) })
		}
		below = l.snapshot
	}
	return nil
}

// unpack makes the snapshot of a layer on the one called below, "" for none.
func (c *conversion) unpack(ctx context.Context, l *layer, below string) error {
	l.bar.Phase("unpacking", 0)
	fsType, size := c.fsType(), strconv.Itoa(c.cfg.VirtualSize)
	told := snapshots.WithLabels(map[string]string{labels.Writable: "dir", labels.FSType: fsType, labels.VirtualSize: size})
	key := l.snapshot + "-active"
	mounts, err := c.snapshots.Prepare(ctx, key, below, told)
	if err != nil {
		return fmt.Errorf("preparing a device: %w", err)
	}
	if err := c.apply(ctx, l, mounts, below == ""); err != nil {
		return err
	}
	l.bar.Phase("committing", 0)
	if err := c.snapshots.Commit(ctx, l.snapshot, key, told); err != nil {
		return fmt.Errorf("committing the device: %w", err)
	}
	return nil
}

// fsType returns what the label about the file system says: of a device that
// there is already, what its layers say.
func (c *conversion) fsType() string {
	if known := c.source.Manifest.Layers[0].Annotations[labels.FSType]; known != "" {
		return known
	}
	return c.cfg.FSType
}
