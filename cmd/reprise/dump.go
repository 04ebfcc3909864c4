package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/cmd/internal/dump"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/remote/blob"
)

func dumpCommand() *cli.Command {
	return &cli.Command{
		Name:      "dump",
		Usage:     "Write the merged disk of an image to a sparse file",
		ArgsUsage: "IMAGE",
		Description: imageHelp + `

The file appears when it is complete; what is zeros in the image is a hole in
it. It can be mounted with mount -o loop,ro.`,
		Flags: slices.Concat(commonFlags(), []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE`; - is standard output", Required: true},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "replace FILE if it exists"},
		}),
		OnUsageError: onUsageError,
		Action:       runDump,
	}
}

// openDisk opens the merged disk of img.
func openDisk(ctx context.Context, img *source.Image) (*lsmt.Image, error) {
	layers := make([]blob.ReaderAt, len(img.Layers))
	for i, l := range img.Layers {
		layers[i] = l
	}
	return backstore.Open(ctx, layers)
}

func runDump(ctx context.Context, cmd *cli.Command) (err error) {
	to := cmd.String("output")
	out := cmd.Root().Writer
	if to == "-" && terminal.Is(out) {
		return usageError{errors.New("standard output is a terminal: redirect it, or name a file")}
	}
	img, err := openImage(ctx, cmd, cmd.Args().Slice())
	if err != nil {
		return err
	}
	defer closing(img, &err)
	disk, err := openDisk(ctx, img)
	if err != nil {
		return err
	}
	var done atomic.Int64
	total := dump.Mapped(disk)
	text := func() string {
		return fmt.Sprintf("%s of %s written", terminal.Bytes(done.Load()), terminal.Bytes(total))
	}
	cfg := dump.Config{Force: cmd.Bool("force"), Progress: func(n int64) { done.Add(n) }}
	err = terminal.During(progress(cmd), text, func() error {
		if to == "-" {
			return dump.Stream(ctx, disk, out, cfg)
		}
		return dump.File(ctx, disk, to, cfg)
	})
	if err != nil {
		return fmt.Errorf("dumping %s: %w", img.Name, err)
	}
	if to != "-" {
		return reportDump(out, to, disk, total)
	}
	return nil
}

func reportDump(w io.Writer, to string, disk *lsmt.Image, total int64) error {
	_, err := fmt.Fprintf(w, "%s: %s, %s of it data\n", to, terminal.Bytes(disk.Size()), terminal.Bytes(total))
	return err
}
