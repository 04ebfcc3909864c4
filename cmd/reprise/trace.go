package main

import "github.com/urfave/cli/v3"

func traceCommand() *cli.Command {
	return &cli.Command{
		Name:  "trace",
		Usage: "Work with recorded starts of images",
		Commands: []*cli.Command{
			traceShowCommand(),
			traceMergeCommand(),
			traceStripCommand(),
			traceAttachCommand(),
		},
	}
}
