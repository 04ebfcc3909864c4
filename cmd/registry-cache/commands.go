package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v3"

	"github.com/reprise-containers/reprise/cmd/internal/cacheadmin"
)

func configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "print the configuration in force, defaults included, as a commented file",
		Action: func(_ context.Context, c *cli.Command) error {
			cfg, err := load(c)
			if err != nil {
				return err
			}
			text, err := cfg.Text()
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(c.Root().Writer, text)
			return err
		},
	}
}

// client returns a client of the cache that runs with the same configuration.
func client(c *cli.Command) (*cacheadmin.Client, error) {
	cfg, err := load(c)
	if err != nil {
		return nil, err
	}
	return cacheadmin.NewClient(cfg.DataPath), nil
}

var jsonFlag = &cli.BoolFlag{Name: "json", Usage: "print JSON"}

func statCommand() *cli.Command {
	return &cli.Command{
		Name:  "stat",
		Usage: "what the running cache holds and did",
		Flags: []cli.Flag{jsonFlag, &cli.BoolFlag{Name: "blobs", Usage: "list the blobs instead, those used last first"}},
		Action: func(ctx context.Context, c *cli.Command) error {
			admin, err := client(c)
			if err != nil {
				return err
			}
			if c.Bool("blobs") {
				blobs, err := admin.Blobs(ctx)
				if err != nil {
					return err
				}
				return show(c, blobs, func(w io.Writer) { printBlobs(w, blobs, time.Now()) })
			}
			s, err := admin.Stat(ctx)
			if err != nil {
				return err
			}
			return show(c, s, func(w io.Writer) { printStat(w, s) })
		},
	}
}

func gcCommand() *cli.Command {
	return &cli.Command{
		Name:  "gc",
		Usage: "have the running cache collect garbage now",
		Flags: []cli.Flag{jsonFlag},
		Action: func(ctx context.Context, c *cli.Command) error {
			admin, err := client(c)
			if err != nil {
				return err
			}
			report, err := admin.Collect(ctx)
			if err != nil {
				return err
			}
			return show(c, report, func(w io.Writer) { printReport(w, report) })
		},
	}
}

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name:  "verify",
		Usage: "have the running cache hash all it holds again; what is damaged is given up",
		Description: "Exit status 1 if something was damaged: it is moved to content/quarantine in the data\n" +
			"path, and fetched again by whoever asks for it.",
		Flags: []cli.Flag{jsonFlag},
		Action: func(ctx context.Context, c *cli.Command) error {
			admin, err := client(c)
			if err != nil {
				return err
			}
			report, err := admin.Verify(ctx, func(p cacheadmin.Progress) {
				fmt.Fprintf(c.Root().ErrWriter, "%d of %d blobs\n", p.Blobs, p.All)
			})
			if err != nil {
				return err
			}
			if err := show(c, report, func(w io.Writer) { printReport(w, report) }); err != nil {
				return err
			}
			if n := report["corrupt"]; n > 0 {
				return fmt.Errorf("%d blobs were damaged", n)
			}
			return nil
		},
	}
}

func purgeCommand() *cli.Command {
	return &cli.Command{
		Name:      "purge",
		Usage:     "have the running cache forget content, and permissions for it",
		ArgsUsage: "DIGEST|HOST/REPOSITORY[:TAG|@DIGEST]...",
		Description: "HOST is the upstream's. Of an image, all that its manifests name goes; what another image\n" +
			"has too is fetched again. Who is being served gets the rest.",
		Flags: []cli.Flag{jsonFlag, &cli.BoolFlag{Name: "all", Usage: "everything"}},
		Action: func(ctx context.Context, c *cli.Command) error {
			admin, err := client(c)
			if err != nil {
				return err
			}
			what := cacheadmin.Purge{All: c.Bool("all")}
			for _, arg := range c.Args().Slice() {
				if _, err := digest.Parse(arg); err == nil {
					what.Digests = append(what.Digests, arg)
				} else {
					what.Images = append(what.Images, arg)
				}
			}
			done, err := admin.Purge(ctx, what)
			if err != nil {
				return err
			}
			return show(c, done, func(w io.Writer) {
				fmt.Fprintf(w, "blobs\t%d\nbytes\t%s\nlinks\t%d\npermissions\t%d\n",
					done.Blobs, units.BytesSize(float64(done.Bytes)), done.Links, done.Permissions)
			})
		},
	}
}

// show prints v as JSON if that was asked for, else by print, in columns.
func show(c *cli.Command, v any, print func(io.Writer)) error {
	if c.Bool("json") {
		e := json.NewEncoder(c.Root().Writer)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(c.Root().Writer, 0, 0, 2, ' ', 0)
	print(w)
	return w.Flush()
}

func printReport(w io.Writer, r cacheadmin.Report) {
	for _, name := range slices.Sorted(maps.Keys(r)) {
		fmt.Fprintf(w, "%s\t%d\n", name, r[name])
	}
}
