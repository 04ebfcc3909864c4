package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/newfile"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/cmd/internal/traces/plot"
	"github.com/reprise-containers/reprise/cmd/internal/traces/view"
	"github.com/reprise-containers/reprise/tracelayer"
)

// What a trace argument can be, for the help texts.
const traceHelp = `A trace is a trace file, with its plan and data beside it (FILE.plan, FILE.data)
if there are any, a list of files of the image, a trace layer in a file, the
directory that one was unpacked to, or an image with a trace layer or one attached
to it.`

func traceShowCommand() *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "Show or plot a recorded start",
		ArgsUsage: "TRACE",
		Description: traceHelp + `

Offsets and bytes are of the layers' uncompressed streams, those of the plan of
their blobs. DISTINCT counts every byte once; the plot draws reads of what had
been read before pale.`,
		Flags: slices.Concat(commonFlags(), []cli.Flag{
			&cli.BoolFlag{Name: "records", Aliases: []string{"r"}, Usage: "print every read"},
			&cli.StringFlag{Name: "plot", Usage: "draw offsets and the sum of bytes into `FILE`.svg or .png instead"},
			&cli.StringFlag{Name: "workload", Usage: "take the trace attached to the image for `KEY`"},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "replace FILE if it exists"},
			jsonFlag(),
		}),
		OnUsageError: onUsageError,
		Action:       runTraceShow,
	}
}

func runTraceShow(ctx context.Context, cmd *cli.Command) (err error) {
	args := cmd.Args().Slice()
	if len(args) != 1 {
		return usageError{errors.New("trace show needs one trace")}
	}
	file := cmd.String("plot")
	draw, err := drawer(file)
	if err != nil {
		return usageError{err}
	}
	r, err := openTrace(ctx, cmd, args[0])
	if err != nil {
		return err
	}
	defer closing(r, &err)
	report := view.New(r.Recording)
	switch {
	case file != "" && len(report.Paths) > 0:
		return fmt.Errorf("%s is a list of files: there is nothing to plot", report.Name)
	case file != "":
		return newfile.Write(file, cmd.Bool("force"), func(f *os.File) error { return draw(report.Figure(), f) })
	case cmd.Bool("json"):
		if !cmd.Bool("records") {
			report.Records = nil
		}
		return printJSON(cmd.Root().Writer, report)
	}
	return report.Print(cmd.Root().Writer, cmd.Bool("records"))
}

// drawer returns what draws a figure in the format that the name of file says.
func drawer(file string) (func(plot.Figure, io.Writer) error, error) {
	switch {
	case file == "", strings.HasSuffix(file, ".svg"):
		return plot.Figure.SVG, nil
	case strings.HasSuffix(file, ".png"):
		return plot.Figure.PNG, nil
	}
	return nil, fmt.Errorf("--plot %s: the name has to end with .svg or .png", file)
}

// openedTrace is a recording and what has to stay open with it.
type openedTrace struct {
	*traces.Recording
	image io.Closer // nil: none
}

// Close closes the recording and its image.
func (t openedTrace) Close() error {
	err := t.Recording.Close()
	if t.image != nil {
		err = errors.Join(err, t.image.Close())
	}
	return err
}

// openTrace opens what arg names, see traceHelp.
func openTrace(ctx context.Context, cmd *cli.Command, arg string) (openedTrace, error) {
	var noTrace error
	st, err := os.Stat(arg)
	unpacked := filepath.Join(arg, tracelayer.SlotName)
	switch {
	case err != nil:
	case !st.IsDir():
		r, err := openTraceFile(ctx, arg)
		if err == nil || ctx.Err() != nil {
			return r, err
		}
		noTrace = err // unless it is an archive
	case isRegular(unpacked):
		return openTraceFile(ctx, unpacked)
	}
	c, err := newChain(cmd, chain.Config{Retry: patience})
	if err != nil {
		return openedTrace{}, err
	}
	platform := cmd.String("platform")
	image, err := source.OpenContent(ctx, arg, source.Config{Registry: c, Platform: platform})
	if err != nil {
		return openedTrace{}, cmp.Or(noTrace, err)
	}
	r, err := traces.Find(ctx, image, platform, cmd.String("workload"))
	if err != nil {
		return openedTrace{}, errors.Join(err, image.Close())
	}
	return openedTrace{r, image}, nil
}

func isRegular(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.Mode().IsRegular()
}

func openTraceFile(ctx context.Context, name string) (openedTrace, error) {
	r, err := traces.OpenRecording(ctx, []string{name})
	return openedTrace{r, nil}, err
}
