package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/cmd/internal/layer"
)

func layerMergeCommand() *cli.Command {
	return &cli.Command{
		Name:      "merge",
		Usage:     "Write a stack of layers as one",
		ArgsUsage: "IMAGE|LAYER...",
		Description: imageHelp + `

What layers hide of those below is left out. They may be the upper part of an
image: what they make read as zeros still does. The size of the device is that of
the topmost layer that has one, the parent that of the bottom layer unless --parent
names one.`,
		Flags:        mergeFlags(),
		OnUsageError: onUsageError,
		Action:       runLayerMerge,
	}
}

// mergeFlags are those of outputs and of images.
func mergeFlags() []cli.Flag {
	flags := outputFlags()
	for _, f := range commonFlags() {
		known := slices.ContainsFunc(flags, func(o cli.Flag) bool { return o.Names()[0] == f.Names()[0] })
		if !known {
			flags = append(flags, f)
		}
	}
	return flags
}

func runLayerMerge(ctx context.Context, cmd *cli.Command) error {
	to, err := output(cmd)
	if err != nil {
		return err
	}
	return merge(ctx, cmd, cmd.Args().Slice(), to, func(src layer.Source, to layer.Output) error {
		return write(ctx, cmd, src, to)
	})
}

// merge opens the stack that the arguments name and gives it, with what is to be
// written, to f.
func merge(ctx context.Context, cmd *cli.Command, args []string, to layer.Output, f func(layer.Source, layer.Output) error) (err error) {
	img, err := openImage(ctx, cmd, args)
	if err != nil {
		return err
	}
	defer closing(img, &err)
	disk, err := openDisk(ctx, img)
	if err != nil {
		return err
	}
	if to.Identity.Parent == "" {
		bottom, err := backstore.OpenLayer(ctx, img.Layers[0])
		if err != nil {
			return fmt.Errorf("opening the bottom layer: %w", err)
		}
		to.Identity.Parent = bottom.Identity().Parent
	}
	warn(cmd.Root().ErrWriter, backstore.SizeWarning(disk.Size()))
	return f(disk, to)
}
