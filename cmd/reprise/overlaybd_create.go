package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// maxGiB is the largest size of a device that the format can state, in GiB.
const maxGiB = 1 << 29

//nolint:gochecknoglobals // a constant that Go can't express
var createRefused = refused{
	"turboOCI": noTurboOCI, "fastoci": noTurboOCI, "raw": noTurboOCI,
	"mkfs": "the file system is made through the kernel, by the snapshotter or \"ctr obdconv\"",
}

func overlaybdCreate() *cli.Command {
	return &cli.Command{
		Name:      "overlaybd-create",
		Usage:     "Make the files of a writable layer (Reprise in place of overlaybd's tool)",
		ArgsUsage: "DATA INDEX GIB",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "u", Usage: "`UUID` of the layer below"},
			&cli.BoolFlag{Name: "s", Usage: "make a sparse layer"},
			&cli.BoolFlag{Name: "verbose", Usage: "accepted, without effect"},
		}, createRefused.flags()),
		Action: runOverlaybdCreate,
	}
}

func runOverlaybdCreate(_ context.Context, cmd *cli.Command) error {
	if err := createRefused.check(cmd); err != nil {
		return err
	}
	args, err := arguments(cmd, 3)
	if err != nil {
		return err
	}
	gib, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil || gib < 0 || gib > maxGiB {
		return usageError{fmt.Errorf("size %q is not a number of GiB from 0 to %d", args[2], maxGiB)}
	}
	return create(cmd, lsmt.UpperFiles{Data: args[0], Index: args[1]}, lsmt.UpperOptions{
		Identity: lsmt.Identity{Parent: cmd.String("u"), VirtualSize: gib << 30},
		Sparse:   cmd.Bool("s"),
	})
}
