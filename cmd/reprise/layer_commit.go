package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/cmd/internal/layer"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
)

func layerCommitCommand() *cli.Command {
	return &cli.Command{
		Name:      "commit",
		Usage:     "Write a layer as it is pushed to registries",
		ArgsUsage: "DATA [INDEX]",
		Description: `DATA and INDEX are the files of a writable layer; DATA alone is one that was
sealed or committed, in any form. What was overwritten is left out. The parent is
the layer's unless --parent names one.`,
		Flags:        outputFlags(),
		OnUsageError: onUsageError,
		Action:       runLayerCommit,
	}
}

func runLayerCommit(ctx context.Context, cmd *cli.Command) (err error) {
	files, err := layerFiles(cmd, 1)
	if err != nil {
		return err
	}
	to, err := output(cmd)
	if err != nil {
		return err
	}
	l, err := layer.Open(ctx, files)
	if err != nil {
		return err
	}
	defer closing(l, &err)
	warnDropped(cmd, l.Layer)
	return write(ctx, cmd, l, to)
}

// warnDropped says if there are records in the log of a layer whose data is lost.
func warnDropped(cmd *cli.Command, l *lsmt.Layer) {
	if n := l.Dropped(); n > 0 {
		warn(cmd.Root().ErrWriter, fmt.Sprintf("the last %s of %s have no data and are left out: a crash kept what was not flushed from the disk", count(int(n), "record"), l))
	}
}

// layerFiles returns the files that the arguments are, at least so many.
func layerFiles(cmd *cli.Command, least int) (lsmt.UpperFiles, error) {
	args := cmd.Args()
	switch {
	case args.Len() < least && least == 1:
		return lsmt.UpperFiles{}, usageError{fmt.Errorf("%s needs the file of a layer", cmd.FullName())}
	case args.Len() < least:
		return lsmt.UpperFiles{}, usageError{fmt.Errorf("%s needs the data file and the index file of a layer", cmd.FullName())}
	case args.Len() > 2:
		return lsmt.UpperFiles{}, usageError{errors.New("a layer is a data file and an index file: there are more arguments")}
	}
	return lsmt.UpperFiles{Data: args.Get(0), Index: args.Get(1)}, nil
}

// write writes src, shows progress meanwhile, and says what was written.
func write(ctx context.Context, cmd *cli.Command, src layer.Source, to layer.Output) error {
	var done atomic.Int64
	to.Progress = func(n int64) { done.Add(n) }
	text := func() string { return terminal.Bytes(done.Load()) + " written" }
	var l layer.Written
	err := terminal.During(progress(cmd), text, func() (err error) {
		l, err = layer.Write(ctx, src, to)
		return err
	})
	if err != nil {
		return err
	}
	return printWritten(cmd, l)
}
