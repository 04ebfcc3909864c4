package main

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/cmd/internal/layer"
)

//nolint:gochecknoglobals // a constant that Go can't express
var commitRefused = refused{
	"turboOCI": noTurboOCI, "fastoci": noTurboOCI,
	"upload": noUpload, "upload_bs": noUpload, "cred_file_path": noUpload, "tls_key_path": noUpload, "tls_cert_path": noUpload,
}

func overlaybdCommit() *cli.Command {
	return &cli.Command{
		Name:      "overlaybd-commit",
		Usage:     "Commit or seal a writable layer (Reprise in place of overlaybd's tool)",
		ArgsUsage: "DATA INDEX OUTPUT, or --commit_sealed DATA OUTPUT, or --seal DATA INDEX",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "m", Usage: "`TEXT` to keep in the layer"},
			&cli.StringFlag{Name: "uuid", Usage: "`UUID` of the layer (default: null)"},
			&cli.StringFlag{Name: "parent-uuid", Aliases: []string{"p"}, Usage: "`UUID` of the layer below (default: what the writable layer says)"},
			&cli.BoolFlag{Name: "z", Usage: "compress into a ZFile"},
			&cli.BoolFlag{Name: "t", Usage: "with -z, write a tar archive around that"},
			&cli.BoolFlag{Name: "f", Usage: "replace OUTPUT if it exists"},
			&cli.StringFlag{Name: "algorithm", Usage: "`lz4 or zstd`", Value: zfile.LZ4.String()},
			&cli.IntFlag{Name: "bs", Usage: "compress blocks of so many `KiB`: 4, 8, 16, 32 or 64", Value: 4},
			&cli.IntFlag{Name: "compress_threads", Usage: "compress on `N` processors (default: all)", HideDefault: true},
			&cli.BoolFlag{Name: "seal", Usage: "seal DATA, which is the output then"},
			&cli.BoolFlag{Name: "commit_sealed", Usage: "DATA was sealed"},
			&cli.BoolFlag{Name: "verbose", Usage: "accepted, without effect"},
		}, commitRefused.flags()),
		Action: runOverlaybdCommit,
	}
}

func runOverlaybdCommit(ctx context.Context, cmd *cli.Command) error {
	if err := commitRefused.check(cmd); err != nil {
		return err
	}
	seal, sealed := cmd.Bool("seal"), cmd.Bool("commit_sealed")
	switch {
	case seal && sealed:
		return usageError{errors.New("--seal and --commit_sealed are two things to do")}
	case seal:
		args, err := arguments(cmd, 2)
		if err != nil {
			return err
		}
		return sealFiles(ctx, cmd, lsmt.UpperFiles{Data: args[0], Index: args[1]}, 0)
	case sealed:
		args, err := arguments(cmd, 2)
		if err != nil {
			return err
		}
		return commitFiles(ctx, cmd, lsmt.UpperFiles{Data: args[0]}, args[1])
	}
	args, err := arguments(cmd, 3)
	if err != nil {
		return err
	}
	return commitFiles(ctx, cmd, lsmt.UpperFiles{Data: args[0], Index: args[1]}, args[2])
}

// commitFiles commits a layer to a file as overlaybd-commit does.
func commitFiles(ctx context.Context, cmd *cli.Command, files lsmt.UpperFiles, to string) (err error) {
	out := layer.Output{
		Path: to, Force: cmd.Bool("f"), Anonymous: true,
		Identity: lsmt.Identity{UUID: cmd.String("uuid"), Parent: cmd.String("parent-uuid"), Tag: cmd.String("m")},
	}
	if cmd.Bool("z") {
		z := zfile.Options{Workers: cmd.Int("compress_threads")}
		if z.Algorithm, err = algorithm(cmd.String("algorithm")); err != nil {
			return usageError{fmt.Errorf("--algorithm %w", err)}
		}
		kib := cmd.Int("bs")
		if kib < 4 || kib > 64 || bits.OnesCount(uint(kib)) != 1 {
			return usageError{fmt.Errorf("--bs %d is not 4, 8, 16, 32 or 64", kib)}
		}
		z.BlockSize = kib << 10
		if err := z.Validate(); err != nil {
			return usageError{err}
		}
		out.Form.Compression, out.Form.Tar = &z, cmd.Bool("t") // without -z, -t has no effect there either
	}
	l, err := layer.Open(ctx, files)
	if err != nil {
		return err
	}
	defer closing(l, &err)
	warnDropped(cmd, l.Layer)
	if _, err := layer.Write(ctx, l, out); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.Root().Writer, "%s: committed\n", to)
	return err
}
