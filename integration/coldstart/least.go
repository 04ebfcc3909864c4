package coldstart

import (
	"context"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/reference"
	"github.com/reprise-containers/reprise/remote/blob"
)

// Least measures what an image's command reads of it at the least, on a plain
// loop device, and what that takes in the layers of l.
func Least(ctx context.Context, n *node.Node, l image.Layout, b image.Build) (reference.Result, reference.Cost, error) {
	var cost reference.Cost
	r, err := reference.Run{Disk: l.Disk(), FSType: b.Format.FSType, Args: b.Args}.Measure(ctx, n.Sandbox, n.Containerd)
	if err != nil {
		return r, cost, err
	}
	_, m, err := l.Manifest()
	if err != nil {
		return r, cost, err
	}
	var layers []blob.ReaderAt
	for _, d := range m.Layers {
		f, err := blob.OpenFile(l.BlobPath(d))
		if err != nil {
			return r, cost, err
		}
		defer f.Close()
		layers = append(layers, f)
	}
	img, err := backstore.Open(ctx, layers)
	if err != nil {
		return r, cost, err
	}
	cost, err = r.Cost(img)
	return r, cost, err
}
