package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
)

// layerFlags say how the data of a writable layer is stored.
const (
	layerAppend = "append"
	layerSparse = "sparse"
)

func layerCreateCommand() *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "Make the files of a writable layer",
		ArgsUsage: "DATA INDEX",
		Description: `The files must not exist. An append-only layer (the default) grows by what is
written; DATA of a sparse one is as large as the device, with holes, and INDEX stays
empty.`,
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "vsize", Usage: "`SIZE` of the device; 0, for an append-only layer, is that of the layers below", Value: "64GiB"},
			&cli.StringFlag{Name: "layer", Usage: "`append or sparse`", Value: layerAppend},
		}, identityFlags()),
		OnUsageError: onUsageError,
		Action:       runLayerCreate,
	}
}

func runLayerCreate(_ context.Context, cmd *cli.Command) error {
	files, err := layerFiles(cmd, 2)
	if err != nil {
		return err
	}
	opts := lsmt.UpperOptions{Identity: identity(cmd)}
	switch kind := cmd.String("layer"); kind {
	case layerAppend:
	case layerSparse:
		opts.Sparse = true
	default:
		return usageError{fmt.Errorf("--layer %q is neither %s nor %s", kind, layerAppend, layerSparse)}
	}
	if opts.VirtualSize, err = bytesFlag(cmd, "vsize"); err != nil {
		return err
	}
	return create(cmd, files, opts)
}

// create makes a writable layer and says what is to be known of it.
func create(cmd *cli.Command, files lsmt.UpperFiles, opts lsmt.UpperOptions) error {
	warn(cmd.Root().ErrWriter, backstore.SizeWarning(opts.VirtualSize))
	if err := lsmt.CreateUpper(files, opts); err != nil {
		return err
	}
	_, err := fmt.Fprintf(cmd.Root().Writer, "%s: %s\n", files.Data, terminal.Bytes(opts.VirtualSize))
	return err
}

func layerSealCommand() *cli.Command {
	return &cli.Command{
		Name:      "seal",
		Usage:     "Make a writable layer a read-only one, in place",
		ArgsUsage: "DATA INDEX",
		Description: `DATA gets the index at its end and is then a layer that can be stacked, committed
or merged; INDEX is of no use any more. What was overwritten stays in the file: commit
leaves it out. A layer that is sealed already stays as it is.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "vsize", Usage: "`SIZE` of the device, of a layer that does not say: of those below"},
		},
		OnUsageError: onUsageError,
		Action: func(ctx context.Context, cmd *cli.Command) error {
			files, err := layerFiles(cmd, 2)
			if err != nil {
				return err
			}
			size, err := bytesFlag(cmd, "vsize")
			if err != nil {
				return err
			}
			return sealFiles(ctx, cmd, files, size)
		},
	}
}

// sealFiles seals a layer, on layers of size bytes.
func sealFiles(ctx context.Context, cmd *cli.Command, files lsmt.UpperFiles, size int64) error {
	if err := lsmt.SealUpper(ctx, files, size); err != nil {
		return err
	}
	_, err := fmt.Fprintf(cmd.Root().Writer, "%s: sealed\n", files.Data)
	return err
}

func layerGrowCommand() *cli.Command {
	return &cli.Command{
		Name:      "grow",
		Usage:     "Make the device of a writable layer larger",
		ArgsUsage: "DATA INDEX",
		Description: `The file system in it stays as large as it is: resize2fs or xfs_growfs make it
larger, where it is mounted.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "vsize", Usage: "new `SIZE` of the device", Required: true},
		},
		OnUsageError: onUsageError,
		Action:       runLayerGrow,
	}
}

func runLayerGrow(ctx context.Context, cmd *cli.Command) (err error) {
	files, err := layerFiles(cmd, 2)
	if err != nil {
		return err
	}
	size, err := bytesFlag(cmd, "vsize")
	if err != nil {
		return err
	}
	u, err := lsmt.OpenUpper(ctx, files, nil)
	if err != nil {
		return err
	}
	defer closing(u, &err)
	if size < u.Size() {
		return usageError{errors.New("a device can't get smaller: what is at its end would be lost")}
	}
	warn(cmd.Root().ErrWriter, backstore.SizeWarning(size))
	if err := u.Grow(ctx, size); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.Root().Writer, "%s: %s\n", files.Data, terminal.Bytes(size))
	return err
}
