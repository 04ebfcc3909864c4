// Command reprise-snapshotter is the node daemon: a containerd proxy
// snapshotter for overlaybd images, and the block devices behind it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/urfave/cli/v3"
	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/cmd/internal/config"
)

// version is set by the linker.
var version = "unknown"

func main() {
	if code, ok := child(os.Args); ok {
		os.Exit(code)
	}
	app := &cli.Command{
		Name:    "reprise-snapshotter",
		Usage:   "containerd snapshotter for lazily loaded overlaybd images",
		Version: version,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "configuration `FILE` (TOML); without it the defaults hold"},
		},
		Action:   run,
		Commands: []*cli.Command{configCommand(), shutdownCommand()},
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	err := app.Run(ctx, os.Args)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "reprise-snapshotter: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, c *cli.Command) error {
	if c.Args().Present() {
		return fmt.Errorf("unknown command %q; see --help", c.Args().First())
	}
	cfg, err := load(c)
	if err != nil {
		return err
	}
	return serve(ctx, cfg)
}

func load(c *cli.Command) (config.Snapshotter, error) {
	if path := c.String("config"); path != "" {
		return config.Load(path)
	}
	return config.Default(), nil
}
