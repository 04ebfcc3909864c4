// Command reprise makes, looks at, checks, extracts and mounts overlaybd
// images. It needs neither containerd nor, except for mounting, root.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/backstore/fusedev"
)

// version is set by the linker.
var version = "unknown"

func newApp() *cli.Command {
	return &cli.Command{
		Name:    "reprise",
		Usage:   "Make, look at, check, extract and mount overlaybd images",
		Version: version,
		Commands: []*cli.Command{
			inspectCommand(),
			dumpCommand(),
			checkCommand(),
			mountCommand(),
			convertCommand(),
			attachChunksCommand(),
			layerCommand(),
			traceCommand(),
		},
		ExitErrHandler: func(context.Context, *cli.Command, error) {}, // exitCode does it
	}
}

func main() {
	// Mounting works with processes that are this program, too.
	if code, ok := fusedev.Child(os.Args); ok {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := called(os.Args[0]).Run(ctx, os.Args)
	stop()
	os.Exit(exitCode(err, os.Stderr))
}
