package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/cmd/ctr/commands/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/snapshotters"

	"github.com/reprise-containers/reprise/snapshot/labels"
)

// puller pulls one image with the layers left in the registry.
type puller struct {
	client      *containerd.Client
	resolver    remotes.Resolver
	snapshotter string            // name of the plugin in containerd
	platform    string            // "" means the host's
	labels      map[string]string // of the image record
	download    bool              // ask the snapshotter not to be lazy
	progress    io.Writer         // nil: none
}

// pull pulls ref and tells what was done.
//
// containerd's unpacker copies the layer annotations under
// containerd.io/snapshot/ to the labels of each Prepare by itself and fetches
// layers only from the first one on for which Prepare did not answer
// ErrAlreadyExists. What it cannot know is the reference: it comes with the
// snapshot options, and a second time with each layer, because an annotation
// in the manifest would override the options.
func (p *puller) pull(ctx context.Context, ref string) (*summary, error) {
	start := time.Now()
	if _, err := p.client.GetSnapshotterCapabilities(ctx, p.snapshotter); err != nil {
		return nil, fmt.Errorf("looking for snapshotter %q: %w (it needs a [proxy_plugins.%s] section in containerd's configuration)",
			p.snapshotter, err, p.snapshotter)
	}
	// The lease keeps what was pulled from garbage collection until the
	// summary has looked at it.
	ctx, done, err := p.client.WithLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("creating a lease: %w", err)
	}
	// It expires by itself should this fail.
	defer func() { _ = done(context.WithoutCancel(ctx)) }()

	moved := newTransfers(p.client.ContentStore(), ref)
	img, err := p.pullShown(ctx, ref, moved)
	if err != nil {
		return nil, err
	}
	s, err := summarize(ctx, img, p.client.SnapshotService(p.snapshotter), moved)
	if err != nil {
		return nil, fmt.Errorf("summarizing the pull of %s: %w", ref, err)
	}
	s.snapshotter, s.asked, s.elapsed = p.snapshotter, p.download, time.Since(start)
	return s, nil
}

// pullShown pulls with containerd's own progress display beside it.
func (p *puller) pullShown(ctx context.Context, ref string, moved *transfers) (containerd.Image, error) {
	if p.progress == nil {
		return p.client.Pull(ctx, ref, p.options(ref, moved)...)
	}
	shown, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { content.ShowProgress(shown, moved.jobs, p.client.ContentStore(), p.progress) })
	defer wg.Wait()
	defer stop()
	return p.client.Pull(ctx, ref, p.options(ref, moved)...)
}

func (p *puller) options(ref string, moved *transfers) []containerd.RemoteOpt {
	snapshotLabels := map[string]string{labels.ImageRef: ref}
	if p.download {
		snapshotLabels[labels.Download] = "download"
	}
	opts := []containerd.RemoteOpt{
		containerd.WithResolver(p.resolver),
		containerd.WithPullUnpack,
		containerd.WithPullSnapshotter(p.snapshotter, snapshots.WithLabels(snapshotLabels)),
		containerd.WithPullLabels(p.labels),
		containerd.WithImageHandler(moved),
		containerd.WithImageHandlerWrapper(snapshotters.AppendInfoHandlerWrapper(ref)),
	}
	if p.platform != "" {
		opts = append(opts, containerd.WithPlatform(p.platform))
	}
	return opts
}
