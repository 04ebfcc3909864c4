package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	"github.com/containerd/containerd/v2/pkg/httpdbg"
	"github.com/containerd/errdefs"
	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/push"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/cmd/internal/transfer"
)

// pushCommand pushes an image whose layers may never have been here.
func pushCommand() *cli.Command {
	return &cli.Command{
		Name:      "push",
		Usage:     "Push an image, also one that was pulled lazily",
		ArgsUsage: "<ref> [<local>]",
		Description: `Push an image of containerd to a registry: <local>, or the one that is called <ref>.

Layers that are not here are mounted from the repository that the image was
pulled from, if that is at the same registry, and else streamed from there to the
destination. ctr images push pushes what is here, and nothing else.

The flags about registries concern the destination. Another registry that layers
are streamed from is reached by the hosts directory and docker's config.json.`,
		Flags: slices.Concat(commands.RegistryFlags, []cli.Flag{
			&cli.StringFlag{Name: "platform", Usage: "Push the manifest for one platform of a multi-platform image, for example linux/arm64"},
			&cli.IntFlag{Name: "max-concurrent-uploaded-layers", Usage: "Blobs on their way at a time", Value: push.DefaultConcurrency},
			&cli.BoolFlag{Name: "allow-non-distributable-blobs", Usage: "Push layers that are marked as non-distributable, too"},
		}),
		DisableSliceFlagSeparator: true,
		Action:                    runPush,
	}
}

func runPush(ctx context.Context, cmd *cli.Command) error {
	ref, local := cmd.Args().First(), cmd.Args().Get(1)
	if n := cmd.Args().Len(); n < 1 || n > 2 {
		return errors.New("push takes an image reference, for example registry.example.com/app:1.0, and the image's name here if that is another")
	}
	if local == "" {
		local = ref
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	client, ctx, cancel, err := commands.NewClient(ctx, cmd)
	if err != nil {
		return err
	}
	defer cancel()
	defer func() { _ = client.Close() }() // nothing is written to it any more
	if cmd.Bool("http-trace") {
		ctx = httpdbg.WithClientTrace(ctx)
	}
	to, err := newRegistry(ctx, cmd, ref)
	if err != nil {
		return err
	}
	defer to.Close()
	from, err := newOrigins(cmd, ref, to)
	if err != nil {
		return err
	}
	img, err := client.ImageService().Get(ctx, local)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("there is no image %s here, see ctr images ls: %w", local, err)
	} else if err != nil {
		return err
	}
	return pushShown(ctx, cmd, push.Config{
		Content: client.ContentStore(), Image: img, Ref: ref, Registry: to, Sources: from,
		Platform:         cmd.String("platform"),
		Concurrency:      cmd.Int("max-concurrent-uploaded-layers"),
		NonDistributable: cmd.Bool("allow-non-distributable-blobs"),
	})
}

// pushShown pushes with bars, if somebody sees them, and tells what was done.
func pushShown(ctx context.Context, cmd *cli.Command, cfg push.Config) error {
	var notes []string
	cfg.Note = func(s string) { notes = append(notes, s) }
	var bars io.Writer
	if terminal.Is(os.Stderr) && !cmd.Bool("debug") {
		bars = os.Stderr
	}
	var r *push.Report
	err := terminal.WithBars(bars, func(b *terminal.Bars) (err error) {
		cfg.Bars = b
		r, err = push.Run(ctx, cfg)
		return err
	})
	for _, n := range notes {
		fmt.Fprintf(cmd.Root().ErrWriter, "ctr: note: %s\n", n)
	}
	if err != nil {
		return err
	}
	return printPush(cmd.Root().Writer, cfg.Ref, r)
}

// printPush writes for people what a push did.
func printPush(w io.Writer, ref string, r *push.Report) error {
	fmt.Fprintf(w, "%s@%s\n", ref, r.Target.Digest)
	ways := []transfer.Stored{transfer.Present, transfer.Mounted, transfer.Uploaded, transfer.Copied}
	text := ""
	for _, way := range ways {
		count, bytes := 0, int64(0)
		for _, b := range r.Blobs {
			if b.Stored == way {
				count, bytes = count+1, bytes+b.Size
			}
		}
		if count > 0 {
			text += fmt.Sprintf(", %d %s (%s)", count, way, terminal.Bytes(bytes))
		}
	}
	_, err := fmt.Fprintf(w, "pushed %d blobs%s\n", len(r.Blobs), text)
	return err
}
