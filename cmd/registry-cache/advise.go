package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/cmd/internal/cacheconfig"
	"github.com/reprise-containers/reprise/cmd/internal/yamlfile"
)

func adviseCommand() *cli.Command {
	return &cli.Command{
		Name:      "advise",
		Usage:     "recommend gc settings for what the access log has recorded",
		ArgsUsage: "[LOG...]",
		Description: "Simulates the cache with recorded requests, by each eviction policy, and prints the miss ratio by\n" +
			"size, the settings that are best for the disk there is, and the hit ratio to expect. LOG is an\n" +
			"access log of the format \"trace\" (also .gz and .zst); by default that of the configuration.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "disk", Usage: "`SIZE` that the cache may take (default: gc.disk.maxSize)"},
			&cli.BoolFlag{Name: "bytes", Usage: "have as many bytes as possible from the cache, not as many requests"},
			jsonFlag,
		},
		Action: advise,
	}
}

// advice is what advise prints.
type advice struct {
	Recorded *simulate.Report `json:"recorded"`
	Advice   *simulate.Advice `json:"advice"`
}

func advise(ctx context.Context, c *cli.Command) error {
	cfg, err := load(c)
	if err != nil {
		return err
	}
	disk := cfg.GC.Disk.MaxSize
	if v := c.String("disk"); v != "" {
		if disk, err = yamlfile.ParseSize(v); err != nil {
			return fmt.Errorf("--disk: %w", err)
		}
	}
	logs, err := accessLogs(c, cfg)
	if err != nil {
		return err
	}
	r, err := trace.Open(trace.Config{Files: logs})
	if err != nil {
		return fmt.Errorf("reading the access log (its format must be trace): %w", err)
	}
	defer r.Close()
	d, err := simulate.Decode(ctx, r, simulate.Scope{})
	if err != nil {
		return err
	}
	var a advice
	if a.Recorded, err = simulate.Run(ctx, d, simulate.Config{Curve: simulate.CurveConfig{Exact: true}}); err != nil {
		return err
	}
	if a.Advice, err = simulate.Recommend(ctx, d, simulate.Limits{Disk: int64(disk), ByBytes: c.Bool("bytes")}); err != nil {
		return err
	}
	var failed error
	err = show(c, a, func(w io.Writer) {
		failed = a.Recorded.WriteText(w)
		fmt.Fprintln(w)
		failed = errors.Join(failed, a.Advice.WriteText(w))
	})
	return errors.Join(err, failed)
}

var errNoLog = errors.New("there is no access log to read: name one, or set accessLog.path and accessLog.format: trace in the configuration")

// accessLogs returns the logs that the command line names, or the configured one.
func accessLogs(c *cli.Command, cfg cacheconfig.Cache) ([]string, error) {
	if c.Args().Present() {
		return c.Args().Slice(), nil
	}
	if cfg.AccessLog.Path == "" || cfg.AccessLog.Path == "-" || cfg.AccessLog.Format != "trace" {
		return nil, errNoLog
	}
	return []string{cfg.AccessLog.Path}, nil
}
