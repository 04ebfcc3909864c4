package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/remote/registry"
)

func traceStripCommand() *cli.Command {
	return &cli.Command{
		Name:      "strip",
		Usage:     "Copy an image without its trace layer",
		ArgsUsage: "SRC DST",
		Description: `SRC and DST are what they are for convert: registry references, OCI image layouts
or archives; they may be the same.

The trace layer is removed from the manifest, its diff ID and its history entry
from the config; nothing else changes, but that the time of creation is again what
it was before record-trace. So an image that got a trace and nothing else becomes
the one that it was made of, with the same digest.`,
		Flags: slices.Concat(registryFlags(), []cli.Flag{
			&cli.StringFlag{Name: "temp-dir", Usage: "`DIR` for temporary files (default: $TMPDIR or /tmp)"},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "replace DST if it is an archive that exists"},
			jsonFlag(),
		}),
		OnUsageError: onUsageError,
		Action:       runTraceStrip,
	}
}

func runTraceStrip(ctx context.Context, cmd *cli.Command) (err error) {
	args := cmd.Args().Slice()
	if len(args) != 2 {
		return usageError{errors.New("trace strip needs a source and a destination")}
	}
	to, err := destination.Parse(args[1])
	if err != nil {
		return usageError{err}
	}
	client, err := newClient(cmd, registry.Config{ResponseHeaderTimeout: uploadPatience})
	if err != nil {
		return err
	}
	var notes notes
	cfg := traces.StripConfig{Dir: cmd.String("temp-dir"), Note: notes.add}
	cfg.Source, err = source.OpenContent(ctx, args[0], source.Config{Registry: chain.New(client, chain.Config{Retry: patience})})
	if err != nil {
		return err
	}
	defer closing(cfg.Source, &err)
	if cfg.Destination, err = openDestination(cmd, client, to); err != nil {
		return err
	}
	defer closing(cfg.Destination, &err)
	var r *traces.StripReport
	err = terminal.WithBars(progress(cmd), func(b *terminal.Bars) error {
		cfg.Bars = b
		r, err = traces.Strip(ctx, cfg)
		return err
	})
	notes.print(cmd.Root().ErrWriter)
	if err != nil {
		return guessed(err, args[1], to)
	}
	r.Destination = to.String()
	if cmd.Bool("json") {
		return printJSON(cmd.Root().Writer, r)
	}
	return printStripped(cmd.Root().Writer, r)
}

func printStripped(w io.Writer, r *traces.StripReport) error {
	fmt.Fprintf(w, "%s@%s\n", r.Destination, r.Digest)
	var err error
	for _, i := range r.Images {
		what := "no trace layer, copied as it is"
		if len(i.Dropped) > 0 {
			what = fmt.Sprintf("without trace layer %s", i.Dropped[0])
		}
		if more := len(i.Dropped) - 1; more > 0 {
			what += fmt.Sprintf(" and %d more", more)
		}
		_, err = fmt.Fprintln(w, strings.TrimSpace(i.Platform+" "+i.Manifest.String()+": "+what))
	}
	return err
}

// notes are things that somebody should know, told by several goroutines.
type notes struct {
	mu  sync.Mutex
	all []string
}

func (n *notes) add(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, s)
}

func (n *notes) print(w io.Writer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.all {
		fmt.Fprintf(w, "reprise: note: %s\n", s)
	}
}
