package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/integration/coldstart"
	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
)

// layouts compares file systems by the bytes that a start needs of them.
func (b bench) layouts(ctx context.Context) error {
	fmt.Printf("\nStarts without readahead: zstd blocks of 4 KiB touched on a plain loop device; read from the daemon's; fetched by it\n")
	fmt.Printf("%-6s %-15s %8s %9s %8s %9s %9s %9s %9s\n", "", "", "touched", "MB", "of ext4", "MB raw", "MB raw", "requests", "MB")
	return b.onNode(ctx, node.Options{Config: coldstart.WithoutReadahead}, func(n *node.Node) error {
		for _, start := range image.Starts() {
			m := layoutMeasure{node: n, name: start.Name}
			for _, fs := range []image.FSType{image.Ext4, image.Erofs} {
				made := start.Build(image.Overlaybd{FSType: fs, Compression: zfile.Options{Algorithm: usual.Algorithm}})
				l, err := b.image(ctx, made)
				if err == nil {
					err = m.measure(ctx, "mkfs."+string(fs), l, made)
				}
				if err != nil {
					return err
				}
			}
			c, err := b.convert(ctx, n, start, usual)
			if err != nil {
				return err
			}
			if err := errors.Join(m.measure(ctx, "converted", c.Layout, start.Build(image.Overlaybd{FSType: image.Erofs})), c.Close()); err != nil {
				return err
			}
		}
		return nil
	})
}

// layoutMeasure measures one image in several forms, ext4 first.
type layoutMeasure struct {
	node *node.Node
	name string
	ext4 float64 // compressed bytes
}

func (m *layoutMeasure) measure(ctx context.Context, form string, l image.Layout, b image.Build) error {
	r, err := coldstart.Request(ctx, m.node, l, b, m.name+":"+form)
	if err != nil {
		return err
	}
	if m.ext4 == 0 {
		m.ext4 = float64(r.Compressed)
	}
	fmt.Printf("%-6s %-15s %8d %9.3f %8.3f %9.3f %9.3f %9d %9.3f\n", m.name, form, r.Touched/zfileBlock, float64(r.Compressed)/1e6,
		float64(r.Compressed)/m.ext4, float64(r.Touched)/1e6, float64(r.Device)/1e6, r.Start.Stats.Requests, float64(r.Start.Stats.Bytes)/1e6)
	return nil
}
