package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/reprise-containers/reprise/cmd/internal/program"
)

var configCommand = &cli.Command{
	Name:  "config",
	Usage: "print the configuration in force, defaults included, as a commented file",
	Action: func(c *cli.Context) error {
		cfg, err := load(c)
		if err != nil {
			return err
		}
		text, err := cfg.Text()
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(c.App.Writer, text)
		return err
	},
}

var shutdownCommand = &cli.Command{
	Name:  "shutdown",
	Usage: "unmount all images and end the descriptor holder, which outlive the daemon otherwise",
	Description: "For the removal of the software, or before a downgrade. The daemon and all\n" +
		"containers on its images must have ended; snapshots and cache stay.",
	Action: func(c *cli.Context) error {
		cfg, err := load(c)
		if err != nil {
			return err
		}
		if _, err := os.Stat(stateDir(cfg)); errors.Is(err, os.ErrNotExist) {
			return nil // there never was a daemon
		}
		server, err := openServer(c.Context, cfg, nil)
		if err != nil {
			return err
		}
		defer server.Close()
		server.Ready()
		return program.Run(c.Context,
			program.Stage{{Name: "serving devices", Run: server.Run}},
			program.Stage{{Name: "shutting down", Run: server.Shutdown}})
	},
}
