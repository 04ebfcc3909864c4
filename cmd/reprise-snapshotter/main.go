// Command reprise-snapshotter is the node daemon: a containerd proxy
// snapshotter for overlaybd images, and the block devices behind it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/cmd/internal/config"
)

// version is set by the linker.
var version = "devel"

func main() {
	if code, ok := fusedev.Child(os.Args); ok {
		os.Exit(code)
	}
	app := &cli.App{
		Name:    "reprise-snapshotter",
		Usage:   "containerd snapshotter for lazily loaded overlaybd images",
		Version: version,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "configuration `FILE` (TOML); without it the defaults hold"},
		},
		Action:   run,
		Commands: []*cli.Command{configCommand, shutdownCommand},
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := app.RunContext(ctx, os.Args); err != nil {
		fmt.Fprintf(os.Stderr, "reprise-snapshotter: %v\n", err)
		os.Exit(1)
	}
}

func run(c *cli.Context) error {
	if c.NArg() > 0 {
		return fmt.Errorf("unknown command %q; see --help", c.Args().First())
	}
	cfg, err := load(c)
	if err != nil {
		return err
	}
	return serve(c.Context, cfg)
}

func load(c *cli.Context) (config.Snapshotter, error) {
	if path := c.String("config"); path != "" {
		return config.Load(path)
	}
	return config.Default(), nil
}
