package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/remote/registry"
)

func traceAttachCommand() *cli.Command {
	return &cli.Command{
		Name:      "attach",
		Usage:     "Push a recorded start beside an image, whose digest stays",
		ArgsUsage: "IMAGE TRACE...",
		Description: `IMAGE is a registry reference or an OCI image layout (a directory, with :TAG).
TRACE is a trace file (several are merged), a list of files of the image, one a
line, or a trace layer in a file. --from takes that of another image instead: its
trace layer, such as record-trace makes it, or else what is attached to it.

What a start fetches (TRACE.plan, and TRACE.data with the bytes) is taken from
beside the trace file if it fits the image, and else made by reading its layers.
A trace of another image is refused.

An image may have several traces, each with its --workload; one that has the
same workload is replaced.`,
		Flags: slices.Concat(registryFlags(), []cli.Flag{
			&cli.StringFlag{Name: "workload", Usage: "`KEY` that nodes choose the trace by"},
			&cli.StringFlag{Name: "from", Usage: "take the trace of `IMAGE`"},
			&cli.BoolFlag{Name: "no-data", Usage: "leave out the data: a start fetches them from the layers"},
			&cli.BoolFlag{Name: "rebuild", Usage: "make plan and data anew, for an image of which only the compression differs"},
			&cli.StringFlag{Name: "platform", Usage: "`OS/ARCH` to choose from a multi-platform image (default: this host's)"},
			&cli.StringFlag{Name: "temp-dir", Usage: "`DIR` for temporary files (default: $TMPDIR or /tmp)"},
			jsonFlag(),
		}),
		OnUsageError: onUsageError,
		Action:       runTraceAttach,
	}
}

func runTraceAttach(ctx context.Context, cmd *cli.Command) (err error) {
	args := cmd.Args().Slice()
	switch {
	case len(args) == 0:
		return usageError{errors.New("trace attach needs an image")}
	case cmd.String("from") == "" && len(args) == 1:
		return usageError{errors.New("trace attach needs a trace, or --from IMAGE")}
	case cmd.String("from") != "" && len(args) > 1:
		return usageError{errors.New("trace attach takes a trace from files or --from an image, not both")}
	}
	created, err := sourceDate()
	if err != nil {
		return usageError{err}
	}
	var notes notes
	cfg := traces.AttachConfig{
		Platform: cmd.String("platform"), Workload: cmd.String("workload"), NoData: cmd.Bool("no-data"),
		Rebuild: cmd.Bool("rebuild"), Created: created, Dir: cmd.String("temp-dir"), Note: notes.add,
	}
	c, err := openCache("")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	client, err := newClient(cmd, registry.Config{ResponseHeaderTimeout: uploadPatience})
	if err != nil {
		return err
	}
	// A plan is made by reading the same ranges more than once.
	ch := chain.New(client, chain.Config{Retry: patience, Cache: c.Cache})
	images := source.Config{Registry: ch, Platform: cfg.Platform}
	if cfg.Image, err = source.OpenContent(ctx, args[0], images); err != nil {
		return err
	}
	defer closing(cfg.Image, &err)
	to, err := beside(client, ch, cfg.Image)
	if err != nil {
		return err
	}
	defer closing(to, &err)
	cfg.Store = to
	var r *traces.Attachment
	err = terminal.WithBars(progress(cmd), func(b *terminal.Bars) (err error) {
		cfg.Bars = b
		r, err = attachRecording(ctx, cfg, cmd.String("from"), args[1:], images)
		return err
	})
	notes.print(cmd.Root().ErrWriter)
	if err != nil {
		return err
	}
	if cmd.Bool("json") {
		return printJSON(cmd.Root().Writer, r)
	}
	return printAttachment(cmd.Root().Writer, r)
}

// attachRecording opens what is to be attached, in the image from or in files,
// and attaches it.
func attachRecording(ctx context.Context, cfg traces.AttachConfig, from string, files []string, images source.Config) (_ *traces.Attachment, err error) {
	if from == "" {
		cfg.Recording, err = traces.OpenRecording(ctx, files)
	} else {
		var image *source.Content
		if image, err = source.OpenContent(ctx, from, images); err != nil {
			return nil, err
		}
		defer closing(image, &err)
		cfg.Recording, err = traces.Take(ctx, image, cfg.Platform, cfg.Workload)
	}
	if err != nil {
		return nil, err
	}
	defer closing(cfg.Recording, &err)
	return traces.Attach(ctx, cfg)
}

// beside returns the repository or layout that an image is in.
func beside(client *registry.Client, ch *chain.Chain, image *source.Content) (destination.Destination, error) {
	switch image.Kind {
	case source.KindRegistry:
		return destination.NewRegistry(client, ch, image.Name)
	case source.KindLayout:
		return destination.NewLayout(image.Name, "")
	}
	return nil, usageError{fmt.Errorf("%s is an archive, to which nothing can be attached: use a registry or a layout", image.Name)}
}

// sourceDate returns the time that SOURCE_DATE_EPOCH says, zero if it is not
// set. (https://reproducible-builds.org/specs/source-date-epoch)
func sourceDate() (time.Time, error) {
	v := os.Getenv("SOURCE_DATE_EPOCH")
	if v == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %q is not a number of seconds", v)
	}
	return time.Unix(n, 0), nil
}

func printAttachment(w io.Writer, r *traces.Attachment) error {
	what := count(r.Reads, "read")
	if r.Files > 0 {
		what = count(r.Files, "file")
	}
	data := "without data"
	if r.Data > 0 {
		data = terminal.Bytes(r.Data) + " of data"
	}
	workload := ""
	if r.Workload != "" {
		workload = " for " + r.Workload
	}
	_, err := fmt.Fprintf(w, "%s: %s%s\ntrace layer %s (%s): %s, %s of the layers in %s, %s\n", r.Manifest, r.Artifact, workload,
		r.Layer, terminal.Bytes(r.Size), what, terminal.Bytes(r.Planned), count(r.Extents, "range"), data)
	return err
}
