package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/newfile"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/tracelayer"
)

// How old recordings are taken to be.
const (
	byTime  = "time"
	byOrder = "order"
)

// orderStep is how much older than the next one a recording is taken to be if
// all that is known is their order.
const orderStep = 24 * time.Hour

func traceMergeCommand() *cli.Command {
	defaults := tracelayer.DefaultMergeConfig()
	return &cli.Command{
		Name:      "merge",
		Usage:     "Make one trace of several recordings of an image",
		ArgsUsage: "TRACE...",
		Description: traceHelp + `

What enough of the recordings read is kept, in the order in which they needed it.
Older ones count less: how old they are is the time of their files, or, with
--by order, their order, the oldest first and a day between them. The result has
no plan: that is made when the trace is attached to an image.`,
		Flags: slices.Concat(commonFlags(), []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the trace to `FILE`", Required: true},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "replace FILE if it exists"},
			&cli.StringFlag{Name: "by", Usage: "take the age of recordings from their `time` or order", Value: byTime},
			&cli.DurationFlag{Name: "half-life", Usage: "`AGE` at which a recording counts half; negative: all count the same", Value: defaults.HalfLife},
			&cli.Float64Flag{Name: "share", Usage: "`SHARE` of the recordings (0 to 1) that must have read what is kept", Value: defaults.MinShare},
			jsonFlag(),
		}),
		OnUsageError: onUsageError,
		Action:       runTraceMerge,
	}
}

// mergeConfig returns what the flags say. That zero there is a value, and in the
// configuration means the default, is told apart here.
func mergeConfig(cmd *cli.Command) (tracelayer.MergeConfig, error) {
	cfg := tracelayer.MergeConfig{HalfLife: cmd.Duration("half-life"), MinShare: cmd.Float64("share")}
	switch by := cmd.String("by"); {
	case cfg.HalfLife == 0:
		return cfg, errors.New("--half-life 0 would leave only the newest recording: name that one")
	case cfg.MinShare < 0:
		return cfg, fmt.Errorf("--share %g is not within 0 and 1", cfg.MinShare)
	case by != byTime && by != byOrder:
		return cfg, fmt.Errorf("--by %s: it has to be %s or %s", by, byTime, byOrder)
	}
	if cfg.MinShare == 0 {
		cfg.MinShare = -1 // any
	}
	return cfg, cfg.Validate()
}

func runTraceMerge(ctx context.Context, cmd *cli.Command) (err error) {
	args := cmd.Args().Slice()
	if len(args) == 0 {
		return usageError{errors.New("trace merge needs the traces to merge")}
	}
	cfg, err := mergeConfig(cmd)
	if err != nil {
		return usageError{err}
	}
	var all []*traces.Recording
	for i, arg := range args {
		r, err := openTrace(ctx, cmd, arg)
		if err != nil {
			return err
		}
		defer r.Close()
		if cmd.String("by") == byOrder {
			r.Time = time.Unix(0, 0).UTC().Add(time.Duration(i) * orderStep)
		}
		all = append(all, r.Recording)
	}
	report, err := traces.Merge(all, cfg)
	if err != nil {
		return err
	}
	to := cmd.String("output")
	err = newfile.Write(to, cmd.Bool("force"), func(f *os.File) error {
		_, err := f.Write(report.Trace.Encode())
		return err
	})
	if err != nil {
		return err
	}
	if cmd.Bool("json") {
		return printJSON(cmd.Root().Writer, report)
	}
	return printMerge(cmd.Root().Writer, to, report, cmd.String("by") == byTime)
}

// printMerge writes what was taken of each recording, and what came of it.
func printMerge(w io.Writer, to string, r *traces.MergeReport, times bool) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "RECORDING\tTIME\tWEIGHT\tREADS\tDISTINCT\tKEPT")
	for _, m := range r.Recordings {
		at := "-"
		if times && !m.Time.IsZero() {
			at = m.Time.Format(time.RFC3339)
		}
		fmt.Fprintf(tw, "%s\t%s\t%.2f\t%d\t%s\t%s (%.0f%%)\n", m.Name, at, m.Weight, m.Reads,
			terminal.Bytes(m.Bytes), terminal.Bytes(m.Kept), 100*float64(m.Kept)/float64(max(m.Bytes, 1)))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s: %s of %s\n", to, count(r.Reads, "read"), terminal.Bytes(r.Bytes))
	return err
}
