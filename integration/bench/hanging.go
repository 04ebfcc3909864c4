package main

import (
	"context"
	"fmt"
	"time"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/interference"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/sandbox/wire"
)

// hanging measures reads beside an image whose registry hangs.
func (b bench) hanging(ctx context.Context) error {
	return b.onNode(ctx, node.Options{}, func(n *node.Node) error { return b.hang(ctx, n) })
}

func (b bench) hang(ctx context.Context, n *node.Node) error {
	l, err := b.image(ctx, benchImage(image.Ext4))
	if err != nil {
		return err
	}
	other, err := b.image(ctx, benchImage(image.Erofs))
	if err != nil {
		return err
	}
	if err := n.Push(ctx, l, "good:1"); err != nil {
		return err
	}
	if err := n.Push(ctx, other, "bad:1"); err != nil {
		return err
	}
	second, err := wire.Listen(n.Registry.Address)
	if err != nil {
		return err
	}
	defer second.Close()
	good, bad := n.Ref("good:1"), second.Address+"/bad:1"
	for _, ref := range []string{good, bad} {
		if _, err := n.Containerd.Rpull(ctx, ref); err != nil {
			return err
		}
	}
	r, err := interference.Measure(ctx, n, good, bad, second, rounds)
	if err != nil {
		return err
	}
	fmt.Printf("\n99th percentile of 4 KiB reads while another image's registry hangs with %d reads\n%10s %10s\n", r.Waiting, "alone", "beside")
	for i := range r.Alone {
		fmt.Printf("%10v %10v\n", r.Alone[i].Round(time.Microsecond), r.Beside[i].Round(time.Microsecond))
	}
	fmt.Printf("ratio of the medians: %.2f\n", r.Ratio())
	return nil
}
