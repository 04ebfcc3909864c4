package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/tables"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/remote/registry"
)

func attachChunksCommand() *cli.Command {
	return &cli.Command{
		Name:      "attach-chunks",
		Usage:     "Make the layers of an existing overlaybd image verifiable",
		ArgsUsage: "IMAGE",
		Description: `IMAGE is a registry reference or an OCI image layout (a directory, with :TAG).

Every layer without a chunk table is read once and compared with its digest.
The tables are pushed beside the image, as a referrer; the image and its digest
stay as they are.`,
		Flags: slices.Concat(registryFlags(), []cli.Flag{
			&cli.StringFlag{Name: "platform", Usage: "only `OS/ARCH` of a multi-platform image (default: all)"},
			jsonFlag(),
		}),
		OnUsageError: onUsageError,
		Action:       runAttachChunks,
	}
}

func runAttachChunks(ctx context.Context, cmd *cli.Command) (err error) {
	if cmd.Args().Len() != 1 {
		return usageError{errors.New("attach-chunks needs an image")}
	}
	client, err := newClient(cmd, registry.Config{ResponseHeaderTimeout: uploadPatience})
	if err != nil {
		return err
	}
	ch := chain.New(client, chain.Config{Retry: patience})
	cfg := tables.Config{Platform: cmd.String("platform")}
	cfg.Image, err = source.OpenContent(ctx, cmd.Args().First(), source.Config{Registry: ch, Platform: cfg.Platform})
	if err != nil {
		return err
	}
	defer closing(cfg.Image, &err)
	to, err := beside(client, ch, cfg.Image)
	if err != nil {
		return err
	}
	defer closing(to, &err)
	cfg.Store = to
	var r *tables.Report
	err = terminal.WithBars(progress(cmd), func(b *terminal.Bars) error {
		cfg.Bars = b
		r, err = tables.Attach(ctx, cfg)
		return err
	})
	if err != nil {
		return err
	}
	if cmd.Bool("json") {
		return printJSON(cmd.Root().Writer, r)
	}
	return printTables(cmd.Root().Writer, r)
}

func printTables(w io.Writer, r *tables.Report) error {
	var err error
	for _, m := range r.Manifests {
		if m.Artifact == "" {
			_, err = fmt.Fprintf(w, "%s: every layer has a table already\n", m.Digest)
			continue
		}
		size, covered := int64(0), int64(0)
		for _, t := range m.Tables {
			size, covered = size+t.Size, covered+t.LayerSize
		}
		_, err = fmt.Fprintf(w, "%s: %s with %s (%s for %s)\n", m.Digest, m.Artifact,
			count(len(m.Tables), "table"), terminal.Bytes(size), terminal.Bytes(covered))
	}
	return err
}
