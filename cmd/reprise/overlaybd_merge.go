package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/cmd/internal/layer"
)

//nolint:gochecknoglobals // a constant that Go can't express
var mergeRefused = refused{
	"service_config_path": noService,
	"upload":              noUpload, "upload_bs": noUpload, "cred_file_path": noUpload, "tls_key_path": noUpload, "tls_cert_path": noUpload,
}

func overlaybdMerge() *cli.Command {
	return &cli.Command{
		Name:      "overlaybd-merge",
		Usage:     "Merge the layers that a config.v1.json names into one (Reprise in place of overlaybd's tool)",
		ArgsUsage: "CONFIG OUTPUT",
		Flags: slices.Concat([]cli.Flag{
			&cli.BoolFlag{Name: "compress", Usage: "compress into a ZFile of lz4 blocks of 4 KiB", Value: true},
			&cli.BoolFlag{Name: "t", Usage: "write a tar archive around it"},
			&cli.BoolFlag{Name: "verbose", Usage: "accepted, without effect"},
		}, registryFlags(), mergeRefused.flags()),
		Action: runOverlaybdMerge,
	}
}

func runOverlaybdMerge(ctx context.Context, cmd *cli.Command) error {
	if err := mergeRefused.check(cmd); err != nil {
		return err
	}
	args, err := arguments(cmd, 2)
	if err != nil {
		return err
	}
	to := layer.Output{Path: args[1], Force: true, Anonymous: true, Form: layer.Form{Tar: cmd.Bool("t")}}
	if cmd.Bool("compress") {
		to.Form.Compression = &zfile.Options{}
	}
	if err := merge(ctx, cmd, args[:1], to, func(src layer.Source, to layer.Output) error {
		_, err := layer.Write(ctx, src, to)
		return err
	}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.Root().Writer, "%s: merged\n", args[1])
	return err
}
