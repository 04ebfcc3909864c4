package coldstart

import (
	"context"
	"fmt"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/reference"
)

// WithoutReadahead is configuration for Options.Config of a node with which
// Request can be called: the daemon reads what the kernel asks for, and keeps
// devices for their counts.
var WithoutReadahead = map[string]string{"device": "readahead = '0'\nkeep_idle = true\n"}

// Frugal is configuration of a node that fetches few bytes for many requests: it
// reads ahead of sequential readers and of nothing else.
var Frugal = map[string]string{"device": "readahead_policy = 'sequential'\n"}

// Requested is what an image's start asks for where nothing reads ahead.
type Requested struct {
	// Cost is that on a plain loop device.
	reference.Cost
	// Device is the bytes that the kernel read from the daemon's device.
	Device int64
	// Start is the lazy start of which Device was counted.
	Start Start
}

// Request starts an image that the node does not have yet on a plain loop device, and from the registry as
// "repository:tag" through a daemon that was configured WithoutReadahead. Both
// starts must print the same. Devices of other images must stay meanwhile.
func Request(ctx context.Context, n *node.Node, l image.Layout, b image.Build, name string) (Requested, error) {
	var r Requested
	least, cost, err := Least(ctx, n, l, b)
	if err != nil {
		return r, err
	}
	r.Cost = cost
	if err := n.Push(ctx, l, name); err != nil {
		return r, err
	}
	before, err := deviceBytes(ctx, n)
	if err != nil {
		return r, err
	}
	if r.Start, err = Lazy(ctx, n, name); err != nil {
		return r, err
	}
	after, err := deviceBytes(ctx, n)
	r.Device = after - before
	if err == nil && r.Start.Stdout != least.Stdout {
		err = fmt.Errorf("%s printed %q, on a plain loop device %q", name, r.Start.Stdout, least.Stdout)
	}
	return r, err
}

func deviceBytes(ctx context.Context, n *node.Node) (int64, error) {
	v, err := n.Snapshotter.Metric(ctx, "reprise_device_read_bytes")
	return int64(v), err
}
