package coldstart

import (
	"context"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/reference"
)

// Least measures what an image's command reads of it at the least, on a plain
// loop device, and what that takes in the layers of l.
func Least(ctx context.Context, n *node.Node, l image.Layout, b image.Build) (reference.Result, reference.Cost, error) {
	var cost reference.Cost
	r, err := reference.Run{Disk: l.Disk(), FSType: b.Format.FSType, Args: b.Args}.Measure(ctx, n.Sandbox, n.Containerd)
	if err != nil {
		return r, cost, err
	}
	img, err := l.Open(ctx)
	if err != nil {
		return r, cost, err
	}
	defer img.Close()
	cost, err = r.Cost(img.Image)
	return r, cost, err
}
