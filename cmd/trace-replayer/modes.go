package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/replayconfig"
	"github.com/reprise-containers/reprise/cmd/internal/replayer"
)

func configFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", Aliases: []string{"i"}, Usage: "configuration `FILE` (YAML)"}
}

func compatFlag() cli.Flag {
	return &cli.BoolFlag{Name: "compat-python", Usage: "take and send what the original did (trace.compat)"}
}

var errNoConfig = errors.New("no configuration: name its file with -i; the config command prints one")

// load returns a replayer of the configuration that flags name.
func load(c *cli.Command) (*replayer.Replayer, error) {
	path := configPath(c)
	if path == "" {
		return nil, errNoConfig
	}
	cfg, err := replayconfig.Load(path)
	if err != nil {
		return nil, err
	}
	cfg.Trace.Compat = cfg.Trace.Compat || c.Bool("compat-python") || c.Root().Bool("compat-python")
	return program(c, cfg), nil
}

// configPath returns the configuration that flags name, behind the command or before it.
func configPath(c *cli.Command) string {
	return cmp.Or(c.String("config"), c.Root().String("config"))
}

// program returns a replayer that prints where the command does.
func program(c *cli.Command, cfg replayconfig.Config) *replayer.Replayer {
	return &replayer.Replayer{Config: cfg, Version: version, Out: c.Root().Writer, Log: c.Root().ErrWriter}
}

// runMode does what -c says, as the original's master.
func runMode(ctx context.Context, c *cli.Command) error {
	mode := replayconfig.Mode(c.String("command"))
	switch {
	case c.Args().Present():
		return fmt.Errorf("unknown command %q; see --help", c.Args().First())
	case mode == "":
		return errors.New("no command: warmup, run, simulate or another of those that --help lists")
	case !slices.Contains(replayconfig.Modes, mode):
		return fmt.Errorf("unknown mode %q: use warmup, run or simulate", mode)
	}
	return do(ctx, c, mode)
}

func do(ctx context.Context, c *cli.Command, mode replayconfig.Mode) error {
	p, err := load(c)
	if err != nil {
		return err
	}
	switch mode {
	case replayconfig.ModeWarmup:
		return p.Warmup(ctx)
	case replayconfig.ModeRun:
		return p.Run(ctx)
	}
	return p.Simulate(ctx)
}

// modeCommand is a mode as a command.
func modeCommand(name, usage string) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, Flags: []cli.Flag{configFlag(), compatFlag()},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			return do(ctx, c, replayconfig.Mode(name))
		},
	}
}

func noArguments(c *cli.Command) error {
	if c.Args().Present() {
		return fmt.Errorf("%s takes no arguments, %q is too much", c.Name, c.Args().First())
	}
	return nil
}
