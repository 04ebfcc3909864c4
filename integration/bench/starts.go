package main

import (
	"context"
	"fmt"
	"time"

	"github.com/reprise-containers/reprise/integration/coldstart"
	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/interference"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/sandbox/wire"
)

// starts compares lazy starts, of an ext4 image as overlaybd's tools make it by
// default and of what the converter makes, with a full pull, over slow lines.
func (b bench) starts(ctx context.Context) error {
	fmt.Printf("\nFrom the start of the pull to the first output (seconds / MB received)\n")
	fmt.Printf("%-10s %16s %16s %16s %8s\n", "line", "lazy ext4 (lz4)", "lazy converted", "full overlayfs", "ratio")
	plain := image.Build{Name: "scipy-plain", Rootfs: image.Scipy(), Args: image.ScipyCommand()}
	kinds := []struct {
		build   image.Build
		convert bool
		start   func(context.Context, *node.Node, string) (coldstart.Start, error)
	}{
		{image.Build{Name: "scipy-ext4", Rootfs: image.Scipy(), Format: image.Overlaybd{FSType: image.Ext4}, Args: image.ScipyCommand()}, false, coldstart.Lazy},
		{plain, true, coldstart.Lazy},
		{plain, false, coldstart.Full},
	}
	for _, rate := range []string{"25mbit", "200mbit"} {
		fmt.Printf("%-10s", rate)
		var ready []float64
		for _, k := range kinds {
			l, err := b.image(ctx, k.build)
			if err != nil {
				return err
			}
			err = b.onNode(ctx, node.Options{Rate: rate}, func(n *node.Node) error {
				if err := prepareStart(ctx, n, l, k.convert, rate); err != nil {
					return err
				}
				s, err := k.start(ctx, n, "start:1")
				ready = append(ready, s.Ready().Seconds())
				fmt.Printf(" %7.2f / %6.1f", s.Ready().Seconds(), float64(s.Stats.Bytes)/1e6)
				return err
			})
			if err != nil {
				return err
			}
		}
		fmt.Printf(" %8.2f\n", ready[1]/ready[2])
	}
	return nil
}

// prepareStart puts an image into the registry as start:1, converted or as it
// is, at full speed.
func prepareStart(ctx context.Context, n *node.Node, l image.Layout, convert bool, rate string) error {
	if err := n.Link.Shape(ctx, ""); err != nil {
		return err
	}
	if convert {
		if _, err := n.Convert(ctx, l.Dir, n.Ref("start:1")); err != nil {
			return err
		}
	} else if err := n.Push(ctx, l, "start:1"); err != nil {
		return err
	}
	return n.Link.Shape(ctx, rate)
}

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
