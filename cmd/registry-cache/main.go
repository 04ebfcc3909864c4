// Command registry-cache is a pull-through cache for OCI images: one download for
// everyone, and for each a permission of their own.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/urfave/cli/v3"
	"golang.org/x/sys/unix"
)

// version is set by the linker.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	// A second signal does not wait for clients.
	defer context.AfterFunc(ctx, stop)()
	err := app().Run(ctx, os.Args)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "registry-cache: %v\n", err)
		os.Exit(1)
	}
}

func app() *cli.Command {
	return &cli.Command{
		Name:  "registry-cache",
		Usage: "pull-through cache for OCI registries",
		Description: "Serves pulls, and asks the upstream registry with the caller's own credentials before\n" +
			"anything is served. Without a file, --upstream is all it needs.",
		Version:  version,
		Flags:    settings(),
		Action:   run,
		Commands: []*cli.Command{configCommand(), statCommand(), gcCommand(), verifyCommand(), purgeCommand(), adviseCommand()},
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
	if !serves(cfg) {
		return errNoUpstream
	}
	return serve(ctx, cfg)
}
