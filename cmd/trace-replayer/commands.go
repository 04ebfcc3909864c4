package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/replayconfig"
	"github.com/reprise-containers/reprise/cmd/internal/replayer"
	"github.com/reprise-containers/reprise/remote/registry"
)

func clientCommand() *cli.Command {
	return &cli.Command{
		Name:  "client",
		Usage: "send requests for a master that runs elsewhere",
		Description: "Waits for masters, one at a time. Who has the secret decides what this machine sends, and to\n" +
			"whom; without one it listens on loopback only.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "ip", Aliases: []string{"i"}, Value: "127.0.0.1", Usage: "`ADDRESS` to listen on"},
			&cli.IntFlag{Name: "port", Aliases: []string{"p"}, Value: 8081, Usage: "`PORT` to listen on"},
			&cli.StringFlag{Name: "secret", Sources: cli.EnvVars("TRACE_REPLAYER_SECRET"), Usage: "`TEXT` that the master must have too"},
			&cli.StringFlag{Name: "secret-file", Usage: "`FILE` with the secret"},
			&cli.BoolFlag{Name: "anyone", Usage: "listen for other machines without a secret"},
			&cli.StringFlag{Name: "cert", Usage: "PEM `FILE` of a certificate (cluster.ca of the master)"},
			&cli.StringFlag{Name: "key", Usage: "PEM `FILE` of its key"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			return program(c, replayconfig.Default()).Serve(ctx, replayer.ClientConfig{
				Addr:   net.JoinHostPort(c.String("ip"), strconv.Itoa(c.Int("port"))),
				Secret: c.String("secret"), SecretFile: c.String("secret-file"), Anyone: c.Bool("anyone"),
				CertFile: c.String("cert"), KeyFile: c.String("key"),
			})
		},
	}
}

func generateCommand() *cli.Command {
	d := replayconfig.Default().Generate
	return &cli.Command{
		Name:  "generate",
		Usage: "make a trace that is as the recorded ones are",
		Description: "JSON lines in the schema of the recorded traces. Sizes, popularity, and when what was read is\n" +
			"read again, are those measured of them.",
		Flags: []cli.Flag{
			configFlag(),
			&cli.Int64Flag{Name: "requests", Aliases: []string{"n"}, Value: d.Requests, Usage: "`NUMBER` of requests"},
			&cli.Uint64Flag{Name: "seed", Usage: "`NUMBER` that decides everything"},
			&cli.FloatFlag{Name: "rate", Value: d.Rate, Usage: "requests a `SECOND`, on average"},
			&cli.IntFlag{Name: "clients", Value: d.Clients, Usage: "`NUMBER` of clients"},
			&cli.BoolFlag{Name: "read-only", Usage: "GETs only"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: d.Output, Usage: "`FILE`, compressed if its name ends in .gz or .zst; - is standard output"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			cfg, err := generateConfig(c)
			if err != nil {
				return err
			}
			return program(c, cfg).Generate(ctx)
		},
	}
}

// generateConfig returns the configuration of a file, if one is named, and over it
// what flags say.
func generateConfig(c *cli.Command) (cfg replayconfig.Config, err error) {
	cfg = replayconfig.Default()
	if path := configPath(c); path != "" {
		if cfg, err = replayconfig.Load(path); err != nil {
			return cfg, err
		}
	}
	g := &cfg.Generate
	for name, set := range map[string]func(){
		"requests":  func() { g.Requests = c.Int64("requests") },
		"seed":      func() { g.Seed = c.Uint64("seed") },
		"rate":      func() { g.Rate = c.Float("rate") },
		"clients":   func() { g.Clients = c.Int("clients") },
		"read-only": func() { g.ReadOnly = c.Bool("read-only") },
		"output":    func() { g.Output = c.String("output") },
	} {
		if c.IsSet(name) {
			set()
		}
	}
	return cfg, cfg.Validate()
}

func reportCommand() *cli.Command {
	return &cli.Command{
		Name:      "report",
		Usage:     "one report of the summaries of several runs",
		ArgsUsage: "SUMMARY.json...",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "html", Usage: "page with plots, into `FILE`"},
			&cli.StringFlag{Name: "json", Usage: "summary of the whole, into `FILE`"},
			&cli.StringFlag{Name: "csv", Usage: "table, into `FILE`"},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			cfg := replayconfig.Default()
			cfg.Report.Files = replayconfig.Files{HTML: c.String("html"), JSON: c.String("json"), CSV: c.String("csv")}
			return program(c, cfg).Report(c.Args().Slice())
		},
	}
}

func rangesCommand() *cli.Command {
	return &cli.Command{
		Name:      "ranges",
		Usage:     "make a trace of a recorded start of an image: the reads of parts of its layers",
		ArgsUsage: "IMAGE",
		Description: "IMAGE is one with a trace layer, in a registry. Its start is read as a node without a cache reads\n" +
			"it: manifest, and range after range of the layers. Replay it without warmup.output.",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "nodes", Value: 1, Usage: "`NUMBER` of nodes that start the image"},
			&cli.DurationFlag{Name: "every", Value: time.Second, Usage: "`TIME` from the start of one node to that of the next"},
			&cli.DurationFlag{Name: "over", Value: 10 * time.Second, Usage: "`TIME` over which a node's reads are spread evenly"},
			&cli.StringFlag{Name: "hosts-dir", Value: "/etc/containerd/certs.d", Usage: "`DIR` of containerd's host configurations"},
			&cli.StringSliceFlag{Name: "plain-http", Usage: "speak http with `HOST[:PORT]`; loopback addresses need no flag"},
			&cli.StringFlag{Name: "docker-config", Usage: "`DIR` of docker's config.json with credentials"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "-", Usage: "`FILE`, compressed if its name ends in .gz or .zst; - is standard output"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.Args().Len() != 1 {
				return fmt.Errorf("ranges takes one image, as host/name:tag")
			}
			return program(c, replayconfig.Default()).Ranges(ctx, replayer.RangesConfig{
				Image: c.Args().First(), Nodes: c.Int("nodes"), Every: c.Duration("every"), Over: c.Duration("over"),
				Output: c.String("output"), Registry: registry.Config{
					HostsDir: c.String("hosts-dir"), PlainHTTP: c.StringSlice("plain-http"), DockerConfig: c.String("docker-config"),
					UserAgent: "trace-replayer/" + version,
				},
			})
		},
	}
}

func configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "print a configuration with all keys, their defaults and what they do",
		Action: func(_ context.Context, c *cli.Command) error {
			text, err := replayconfig.Default().Text()
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(c.Root().Writer, text)
			return err
		},
	}
}
