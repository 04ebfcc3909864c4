package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// origin says where the content of a layer comes from after a pull.
type origin string

const (
	lazy       origin = "lazy"       // read from the registry when needed
	downloaded origin = "downloaded" // transferred by this pull
	present    origin = "present"    // was unpacked here before
)

// layer is one line of a summary.
type layer struct {
	digest digest.Digest
	size   int64 // bytes
	origin origin
	trace  bool
}

// summary is what a pull did.
type summary struct {
	name        string
	target      digest.Digest
	layers      []layer // bottom first
	blobs       int     // transferred
	bytes       int64   // transferred
	elapsed     time.Duration
	snapshotter string
	asked       bool // for a download of everything
}

// summarize finds out what became of each layer of img: the snapshotter marks
// the snapshots it provides lazily, and moved knows what was transferred.
func summarize(ctx context.Context, img containerd.Image, sn snapshots.Snapshotter, moved *transfers) (*summary, error) {
	manifest, err := images.Manifest(ctx, img.ContentStore(), img.Target(), img.Platform())
	if err != nil {
		return nil, err
	}
	diffIDs, err := img.RootFS(ctx)
	if err != nil {
		return nil, err
	}
	chainIDs := identity.ChainIDs(slices.Clone(diffIDs))
	s := &summary{name: img.Name(), target: img.Target().Digest}
	s.blobs, s.bytes = moved.total()
	for _, desc := range manifest.Layers {
		if !images.IsLayerType(desc.MediaType) {
			continue
		}
		if len(s.layers) == len(chainIDs) {
			return nil, fmt.Errorf("manifest has more layers than the config's %d diffIDs", len(chainIDs))
		}
		o, err := originOf(ctx, sn, chainIDs[len(s.layers)], desc, moved)
		if err != nil {
			return nil, err
		}
		s.layers = append(s.layers, layer{
			digest: desc.Digest, size: desc.Size, origin: o,
			trace: labels.IsTrace(desc.Annotations),
		})
	}
	return s, nil
}

func originOf(ctx context.Context, sn snapshots.Snapshotter, chainID digest.Digest, desc ocispec.Descriptor, moved *transfers) (origin, error) {
	info, err := sn.Stat(ctx, chainID.String())
	if err != nil {
		return "", fmt.Errorf("looking at the snapshot of layer %s: %w", desc.Digest, err)
	}
	if _, ok := info.Labels[labels.Remote]; ok {
		return lazy, nil
	}
	if _, ok := moved.bytes(desc.Digest); ok {
		return downloaded, nil
	}
	return present, nil
}

// print writes the summary for people.
func (s *summary) print(w io.Writer) error {
	fmt.Fprintf(w, "%s@%s\n", s.name, s.target)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "LAYER\tSIZE\tCONTENT")
	count, size := 0, int64(0)
	for _, l := range s.layers {
		note := ""
		if l.trace {
			note = " (trace)"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s%s\n", short(l.digest), terminal.Bytes(l.size), l.origin, note)
		if l.origin == lazy {
			count, size = count+1, size+l.size
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if count == 0 && !s.asked {
		fmt.Fprintf(w, "No layer is lazy: the image is not in overlaybd format, or snapshotter %s does not provide it.\n", s.snapshotter)
	}
	_, err := fmt.Fprintf(w, "pulled in %.2fs: %d of %d layers (%s) lazy, %s in %d blobs transferred\n",
		s.elapsed.Seconds(), count, len(s.layers), terminal.Bytes(size), terminal.Bytes(s.bytes), s.blobs)
	return err
}

// short abbreviates a digest as far as people still tell layers apart.
func short(d digest.Digest) string {
	return string(d.Algorithm()) + ":" + d.Encoded()[:min(12, len(d.Encoded()))]
}
