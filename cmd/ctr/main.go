// Command ctr is containerd's own client with the commands that image authors
// and nodes need for lazily pulled overlaybd images. Every command of
// containerd's ctr is there, unchanged.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/cmd/ctr/app"
	"github.com/urfave/cli/v3"
)

// newApp returns containerd's ctr with our commands added.
func newApp() *cli.Command {
	ctr := app.New()
	ctr.Commands = append(ctr.Commands, rpullCommand(), recordCommand(), pushCommand(), obdconvCommand(), commitCommand())
	return ctr
}

// main leaves signals to the commands: ctr run hands them on to the container.
func main() {
	if err := newApp().Run(context.Background(), os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "ctr:", err)
		os.Exit(1)
	}
}
