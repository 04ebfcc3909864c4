package commit

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/rootfs"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/imagestore"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// leaseLife is how long what was made is kept, should this program be killed.
const leaseLife = time.Hour

// commit is one run.
type commit struct {
	cfg       Config
	container containerd.Container
	info      containers.Container
	snapshots snapshots.Snapshotter
	base      *imagestore.Image
}

// Run makes an image. With an error the name stands for what it stood for before.
// The container runs again if it ran.
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Note == nil {
		cfg.Note = func(string) {}
	}
	ctx, end, err := imagestore.Lease(ctx, cfg.Client, leaseLife)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	c := &commit{cfg: cfg}
	r, err := c.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("committing container %s: %w", cfg.Container, err)
	}
	return r, nil
}

func (c *commit) run(ctx context.Context) (*Report, error) {
	if err := c.open(ctx); err != nil {
		return nil, err
	}
	r := &Report{Name: c.cfg.Name}
	for _, d := range c.base.Dropped {
		r.Dropped = append(r.Dropped, d.Digest)
		c.cfg.Note(fmt.Sprintf("%s is dropped: a trace layer is about the image that it was recorded with, and belongs on top of it only", d.Digest))
	}
	l, err := c.compare(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading what it changed: %w", err)
	}
	if l.command, err = c.command(ctx); err != nil {
		return nil, err
	}
	l.now = time.Now().UTC()
	config, err := c.cfg.config(c.base, l)
	if err != nil {
		return nil, fmt.Errorf("making the config: %w", err)
	}
	chain, err := c.unpack(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("unpacking the new layer %s: %w", l.desc.Digest, err)
	}
	m := manifest(c.base, l)
	desc, err := imagestore.Make(ctx, c.cfg.Client, imagestore.Documents{
		Name: c.cfg.Name, Manifest: m, Config: config, ConfigType: c.base.Manifest.Config.MediaType,
		Snapshots: map[string]digest.Digest{c.info.Snapshotter: chain},
		Labels:    c.base.Origins,
	})
	r.Target, r.Layer, r.Overlaybd = desc.Digest, m.Layers[len(m.Layers)-1], isOverlaybd(l.desc)
	return r, err
}

// open finds the container and its image.
func (c *commit) open(ctx context.Context) (err error) {
	if c.container, err = c.cfg.Client.LoadContainer(ctx, c.cfg.Container); err != nil {
		return err
	}
	if c.info, err = c.container.Info(ctx); err != nil {
		return err
	}
	if c.info.Image == "" || c.info.SnapshotKey == "" {
		return fmt.Errorf("it was made without an image: %w", errdefs.ErrFailedPrecondition)
	}
	c.snapshots = c.cfg.Client.SnapshotService(c.info.Snapshotter)
	if c.base, err = imagestore.Open(ctx, c.cfg.Client, c.info.Image); err != nil {
		return err
	}
	st, err := c.snapshots.Stat(ctx, c.info.SnapshotKey)
	if err != nil {
		return fmt.Errorf("looking at its snapshot: %w", err)
	}
	// The name may stand for another image than when the container was made.
	if want := identity.ChainID(c.base.Stored).String(); st.Parent != want {
		return fmt.Errorf("its snapshot lies on %s, but %s has %s now: tag the image that it was made of with that name: %w",
			st.Parent, c.info.Image, want, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// compare makes the layer in the content store, while the container does not run.
func (c *commit) compare(ctx context.Context) (l added, err error) {
	if !c.cfg.Running {
		resume, failed := c.pause(ctx)
		if failed != nil {
			return l, fmt.Errorf("pausing: %w", failed)
		}
		defer func() { err = errors.Join(err, resume()) }()
	}
	asked := diff.WithMediaType(mediaTypes[c.cfg.Compression])
	l.desc, err = rootfs.CreateDiff(ctx, c.info.SnapshotKey, c.snapshots, c.cfg.Client.DiffService(), asked)
	if err != nil {
		return l, err
	}
	l.diffID, err = c.diffID(ctx, l.desc)
	return l, err
}

// diffID returns the digest of a layer's archive, not compressed.
func (c *commit) diffID(ctx context.Context, desc ocispec.Descriptor) (digest.Digest, error) {
	info, err := c.cfg.Client.ContentStore().Info(ctx, desc.Digest)
	if err != nil {
		return "", err
	}
	if known, ok := info.Labels["containerd.io/uncompressed"]; ok {
		return digest.Parse(known)
	}
	if desc.MediaType == ocispec.MediaTypeImageLayer || desc.MediaType == images.MediaTypeDockerSchema2Layer {
		return desc.Digest, nil
	}
	return "", fmt.Errorf("the diff service made %s and did not say its diff ID", desc.Digest)
}

// pause stops the container if it runs, until resume is called.
func (c *commit) pause(ctx context.Context) (resume func() error, err error) {
	nothing := func() error { return nil }
	task, err := c.container.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return nothing, nil
	} else if err != nil {
		return nil, err
	}
	status, err := task.Status(ctx)
	if err != nil {
		return nil, err
	}
	if status.Status != containerd.Running {
		return nothing, nil
	}
	if err := task.Pause(ctx); err != nil {
		return nil, err
	}
	return func() error {
		clean, cancel := imagestore.Cleaning(ctx)
		defer cancel()
		if err := task.Resume(clean); err != nil {
			return fmt.Errorf("resuming it, which ctr task resume %s may do: %w", c.cfg.Container, err)
		}
		return nil
	}, nil
}

// command returns what the container runs, for the history.
func (c *commit) command(ctx context.Context) (string, error) {
	spec, err := c.container.Spec(ctx)
	if err != nil {
		return "", fmt.Errorf("reading its specification: %w", err)
	}
	if spec.Process == nil {
		return "", nil
	}
	return strings.Join(spec.Process.Args, " "), nil
}

// unpack makes the snapshot of the new layer, as it is made where the image is
// pulled, and returns its chain ID.
func (c *commit) unpack(ctx context.Context, l added) (digest.Digest, error) {
	below := identity.ChainID(c.base.DiffIDs)
	chain := identity.ChainID([]digest.Digest{below, l.diffID})
	_, err := c.snapshots.Stat(ctx, chain.String())
	if err == nil || !errdefs.IsNotFound(err) {
		return chain, err
	}
	told := snapshots.FilterInheritedLabels(l.desc.Annotations)
	if told == nil {
		told = map[string]string{}
	}
	told[labels.Target] = chain.String()
	told[labels.DiffID] = l.diffID.String()
	told[labels.ParentChainID] = below.String()
	key := fmt.Sprintf(snapshots.UnpackKeyFormat, unique(), chain)
	mounts, err := c.snapshots.Prepare(ctx, key, below.String(), snapshots.WithLabels(told))
	if err != nil {
		return chain, fmt.Errorf("preparing a snapshot: %w", err)
	}
	applied, err := c.cfg.Client.DiffService().Apply(ctx, l.desc, mounts)
	switch {
	case err == nil && applied.Digest != l.diffID:
		err = fmt.Errorf("it has the diff ID %s then, not %s", applied.Digest, l.diffID)
	case err == nil:
		err = c.snapshots.Commit(ctx, chain.String(), key, snapshots.WithLabels(told))
	}
	if err != nil {
		clean, cancel := imagestore.Cleaning(ctx)
		defer cancel()
		if gone := c.snapshots.Remove(clean, key); !errdefs.IsAlreadyExists(err) {
			return chain, errors.Join(err, gone)
		}
	}
	return chain, nil
}

// unique returns a part of names that no other commit has.
func unique() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return "commit-" + hex.EncodeToString(b[:])
}
