package coldstart

import (
	"context"
	"errors"
	"os"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
)

// Convert makes the overlaybd image of src, whatever `reprise convert` takes, in
// the folder dir, with the disk image that its layers form. It is made each time,
// for it is the converter that is measured.
func Convert(ctx context.Context, n *node.Node, src, dir string, flags ...string) (image.Layout, error) {
	l := image.Layout{Dir: dir}
	if _, err := n.Convert(ctx, src, dir, flags...); err != nil {
		return l, err
	}
	_, err := n.Run(ctx, n.Path("bin/reprise"), "dump", "-o", l.Disk(), dir)
	return l, errors.Join(err, os.Chmod(dir, 0o755))
}
