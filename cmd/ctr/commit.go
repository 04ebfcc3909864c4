package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/commit"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
)

// commitCommand makes an image of a container. Flags are those of nerdctl's commit.
func commitCommand() *cli.Command {
	return &cli.Command{
		Name:      "commit",
		Usage:     "Make an image of a container",
		ArgsUsage: "<container> <ref>",
		Description: `Name <ref> an image with the layers of a container's image and one with what the
container changed. It runs here at once and is not pushed: ctr push does that, also
if the other layers were never here.

What the layer is depends on containerd's diff service: an archive of files, or an
overlaybd layer. A trace that the container's image has is dropped.

The container is paused meanwhile. It must not be one of another machine's
containerd, and not one that has no image.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "author", Aliases: []string{"a"}, Usage: "Author, for example 'Jane Doe <jane@example.com>' (default: that of the container's image)"},
			&cli.StringFlag{Name: "message", Aliases: []string{"m"}, Usage: "Comment for the history"},
			&cli.StringSliceFlag{
				Name: "change", Aliases: []string{"c"},
				Usage: "Apply an instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, LABEL, WORKDIR, USER, EXPOSE, VOLUME or STOPSIGNAL",
			},
			&cli.BoolFlag{Name: "pause", Aliases: []string{"p"}, Usage: "Pause the container meanwhile", Value: true},
			&cli.StringFlag{Name: "compression", Usage: "Compression of an archive, gzip or zstd", Value: "gzip"},
		},
		DisableSliceFlagSeparator: true,
		Action:                    runCommit,
	}
}

func runCommit(ctx context.Context, cmd *cli.Command) error {
	cfg, err := commitConfig(cmd)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	client, ctx, cancel, err := commands.NewClient(ctx, cmd)
	if err != nil {
		return err
	}
	defer cancel()
	defer func() { _ = client.Close() }() // nothing is written to it any more
	cfg.Client = client
	r, err := commit.Run(ctx, cfg)
	if err != nil {
		return err
	}
	return printCommit(cmd.Root().Writer, r)
}

// commitConfig reads the flags.
func commitConfig(cmd *cli.Command) (commit.Config, error) {
	if cmd.Args().Len() != 2 {
		return commit.Config{}, errors.New("commit takes a container and the name of the image that is made of it, for example box app:2")
	}
	cfg := commit.Config{
		Container: cmd.Args().Get(0), Name: cmd.Args().Get(1),
		Author: cmd.String("author"), Message: cmd.String("message"),
		Running:     !cmd.Bool("pause"),
		Compression: cmd.String("compression"),
		Note:        func(s string) { printNotes(cmd, []string{s}) },
	}
	for _, text := range cmd.StringSlice("change") {
		c, err := commit.ParseChange(text)
		if err != nil {
			return cfg, err
		}
		cfg.Changes = append(cfg.Changes, c)
	}
	return cfg, nil
}

// printCommit writes for people what was made of a container.
func printCommit(w io.Writer, r *commit.Report) error {
	kind := "an archive of files"
	if r.Overlaybd {
		kind = "an overlaybd layer"
	}
	_, err := fmt.Fprintf(w, "%s@%s\nlayer %s: %s, %s\n", r.Name, r.Target, short(r.Layer.Digest), terminal.Bytes(r.Layer.Size), kind)
	return err
}
