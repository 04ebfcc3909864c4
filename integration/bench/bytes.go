package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/integration/coldstart"
	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/reference"
)

// usual is how the converter compresses unless it is told otherwise.
var usual = zfile.Options{Algorithm: zfile.ZSTD, BlockSize: zfileBlock}

// converted is an image that was just converted. It must be closed.
type converted struct {
	image.Layout
	*image.Opened
	start image.Start
}

// convert converts the ordinary image of a start.
func (b bench) convert(ctx context.Context, n *node.Node, s image.Start, z zfile.Options) (*converted, error) {
	images := filepath.Join(b.tools.Cache, "images")
	src, err := s.Layered().Make(ctx, images, say)
	if err != nil {
		return nil, err
	}
	say("converting %s", s.Name)
	dir, err := os.MkdirTemp(images, "converted-")
	if err != nil {
		return nil, err
	}
	c := &converted{start: s}
	c.Layout, err = coldstart.Convert(ctx, n, src.Dir, dir,
		"--compression", z.Algorithm.String(), "--block-size", strconv.Itoa(z.BlockSize))
	if err == nil {
		c.Opened, err = c.Open(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return c, nil
}

// Close removes the image.
func (c *converted) Close() error { return errors.Join(c.Opened.Close(), os.RemoveAll(c.Dir)) }

// record runs the image's command on a plain loop device without readahead.
func (c *converted) record(ctx context.Context, n *node.Node) (reference.Result, error) {
	return reference.Run{Disk: c.Disk(), FSType: image.Erofs, Args: c.start.Args}.Measure(ctx, n.Sandbox, n.Containerd)
}

// recorded calls f with each of the images, converted, and its recorded start.
func (b bench) recorded(ctx context.Context, f func(*node.Node, *converted, reference.Result) error) error {
	return b.onNode(ctx, node.Options{}, func(n *node.Node) error {
		for _, start := range image.Starts() {
			c, err := b.convert(ctx, n, start, usual)
			if err != nil {
				return err
			}
			r, err := c.record(ctx, n)
			if err == nil {
				err = f(n, c, r)
			}
			if err := errors.Join(err, c.Close()); err != nil {
				return err
			}
		}
		return nil
	})
}
