package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/containerd/containerd/v2/cmd/ctr/commands"
	"github.com/containerd/containerd/v2/pkg/httpdbg"
	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/terminal"
)

// defaultSnapshotter is the name under which nerdctl and others know the
// snapshotter, so it is also the name of the proxy plugin.
const defaultSnapshotter = "overlaybd"

// rpullCommand pulls an image without its layers. Flags and defaults are those
// of the rpull of accelerated-container-image, so scripts keep working.
func rpullCommand() *cli.Command {
	return &cli.Command{
		Name:      "rpull",
		Usage:     "Pull an overlaybd image lazily: manifest and config now, file contents when they are read",
		ArgsUsage: "<ref>",
		Description: `Pull an image through a snapshotter that provides layers from the registry.

Only the manifest and the config are transferred; everything else is read from
the registry when a container needs it, and what a trace layer foretells before
that. Layers the snapshotter cannot provide are downloaded and unpacked as usual,
so ordinary images work, too, and so are trace layers without a plan, such as
those of overlaybd's own tools.

The snapshotter reads the layers by itself, later and again: a private registry
must also be in its own configuration (hosts directory, docker credentials).
The flags below concern this pull only.`,
		Flags: slices.Concat(commands.RegistryFlags, []cli.Flag{
			commands.LabelFlag,
			&cli.StringFlag{
				Name:    "snapshotter",
				Usage:   "Snapshotter that provides the layers",
				Value:   defaultSnapshotter,
				Sources: cli.EnvVars("CONTAINERD_SNAPSHOTTER"),
			},
			&cli.StringFlag{
				Name:  "platform",
				Usage: "Platform of a multi-platform image, for example linux/arm64 (default: this host's)",
			},
			&cli.BoolFlag{
				Name:  "download-blobs",
				Usage: "Download and unpack all layers now instead of reading them on demand",
			},
		}),
		DisableSliceFlagSeparator: true,
		Action:                    rpull,
	}
}

func rpull(ctx context.Context, cmd *cli.Command) error {
	if cmd.Args().Len() != 1 {
		return errors.New("rpull takes one image reference, for example registry.example.com/app:1.0")
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
	resolver, err := commands.GetResolver(ctx, cmd)
	if err != nil {
		return err
	}
	p := puller{
		client:      client,
		resolver:    resolver,
		snapshotter: cmd.String("snapshotter"),
		platform:    cmd.String("platform"),
		labels:      commands.LabelArgs(cmd.StringSlice("label")),
		download:    cmd.Bool("download-blobs"),
	}
	// containerd's display finds out the width from standard input, and
	// debug messages and a display destroy each other.
	if terminal.Is(os.Stdout) && terminal.Is(os.Stdin) && !cmd.Bool("debug") {
		p.progress = os.Stdout
	}
	s, err := p.pull(ctx, cmd.Args().First())
	if err != nil {
		return err
	}
	return s.print(cmd.Root().Writer)
}
