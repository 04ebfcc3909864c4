package main

import (
	"context"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/inspect"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
)

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "Show the layers, formats, sizes and index of an image",
		ArgsUsage: "IMAGE",
		Description: imageHelp + `

Only headers, jump tables and indexes are read. RATIO is compressed size to
uncompressed size, VISIBLE what of a layer is not hidden by those above it.`,
		Flags:        slices.Concat(commonFlags(), []cli.Flag{jsonFlag()}),
		OnUsageError: onUsageError,
		Action:       runInspect,
	}
}

func runInspect(ctx context.Context, cmd *cli.Command) (err error) {
	img, err := openImage(ctx, cmd, cmd.Args().Slice())
	if err != nil {
		return err
	}
	defer closing(img, &err)
	var r *inspect.Report
	err = terminal.During(progress(cmd), func() string { return "reading headers and indexes..." }, func() error {
		r, err = inspect.Image(ctx, img)
		return err
	})
	if err != nil {
		return err
	}
	if cmd.Bool("json") {
		return printJSON(cmd.Root().Writer, r)
	}
	return r.Print(cmd.Root().Writer)
}
