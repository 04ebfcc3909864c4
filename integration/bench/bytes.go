package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/reference"
)

// startImages are ordinary images whose starts are measured in bytes.
var startImages = []image.Build{
	{Name: "redis", Rootfs: image.Redis(), Args: image.RedisCommand()},
	{Name: "node", Rootfs: image.Node(), Args: image.NodeCommand()},
	{Name: "scipy", Rootfs: image.Scipy(), Args: image.ScipyCommand()},
}

// converted is an image that was just converted. It must be closed.
type converted struct {
	image.Layout
	*image.Opened
	build image.Build
}

// convert converts an image.
func (b bench) convert(ctx context.Context, build image.Build, z zfile.Options) (*converted, error) {
	src, err := b.image(ctx, build)
	if err != nil {
		return nil, err
	}
	say("converting %s", build.Name)
	dir, err := os.MkdirTemp(filepath.Dir(src.Dir), "converted-")
	if err != nil {
		return nil, err
	}
	c := &converted{Layout: image.Layout{Dir: dir}, build: build}
	c.build.Format = image.Overlaybd{FSType: image.Erofs, Compression: z}
	c.Layout, err = image.Convert(ctx, src, dir, z, build.Args)
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
	return reference.Run{Disk: c.Disk(), FSType: image.Erofs, Args: c.build.Args}.Measure(ctx, n.Sandbox, n.Containerd)
}

// recorded calls f with each of the images, converted, and its recorded start.
func (b bench) recorded(ctx context.Context, f func(*converted, reference.Result) error) error {
	return b.onNode(ctx, node.Options{}, func(n *node.Node) error {
		for _, build := range startImages {
			c, err := b.convert(ctx, build, zfile.Options{Algorithm: zfile.ZSTD})
			if err != nil {
				return err
			}
			r, err := c.record(ctx, n)
			if err == nil {
				err = f(c, r)
			}
			if err := errors.Join(err, c.Close()); err != nil {
				return err
			}
		}
		return nil
	})
}
