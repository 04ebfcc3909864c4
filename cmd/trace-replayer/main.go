// Command trace-replayer replays recorded traffic of registries against registries,
// and simulates what caches would do with it.
package main

import (
	"context"
	"errors"
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
	// A second signal does not wait for what is under way.
	defer context.AfterFunc(ctx, stop)()
	err := app().Run(ctx, os.Args)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = context.Cause(ctx) // by which signal
	}
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "trace-replayer: %v\n", err)
		os.Exit(1)
	}
}

func app() *cli.Command {
	return &cli.Command{
		Name:  "trace-replayer",
		Usage: "replay recorded registry traffic, or simulate caches with it",
		Description: "What is done with which trace, registry and report is in a configuration file: see the\n" +
			"config command. -c MODE -i FILE is the original's way of asking for warmup, run or simulate.",
		Version: version,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "command", Aliases: []string{"c"}, Usage: "`MODE`: warmup, run or simulate"},
			configFlag(),
			compatFlag(),
		},
		Action: runMode,
		Commands: []*cli.Command{
			modeCommand("warmup", "push what the trace asks for to the first registry"),
			modeCommand("run", "replay the trace against the registries"),
			modeCommand("simulate", "simulate caches, or run a simulator of yours, over the trace"),
			clientCommand(), generateCommand(), rangesCommand(), reportCommand(), configCommand(),
		},
	}
}
