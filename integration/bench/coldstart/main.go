// Command coldstart measures how long it takes from an image in a registry
// behind a slow or far line until what is in the image is available, in several
// ways of getting there, and compares it with the least that it can take. It
// needs root.
//
// One row of it:
//
//	make bench-coldstart COLDSTART='-images wordpress -lines 25mbit -variants traced -runs 1'
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/reprise-containers/reprise/integration/coldstart/report"
	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/sandbox/link"
)

// choice is what is measured.
type choice struct {
	images   []image.Start
	lines    []link.Line
	variants []variant
	runs     int
	pairs    int
	out      string
	verbose  bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c, err := parse(os.Args[1:])
	if err == nil {
		err = run(ctx, c)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "coldstart:", err)
		os.Exit(1)
	}
}

func parse(args []string) (c choice, err error) {
	var known, images []string
	for _, v := range variants {
		known = append(known, v.name)
	}
	for _, s := range image.ColdStarts() {
		images = append(images, s.Name)
	}
	f := flag.NewFlagSet("coldstart", flag.ContinueOnError)
	chosenImages := f.String("images", strings.Join(images, ","), "")
	lines := f.String("lines", "25mbit,25mbit+40ms,200mbit,200mbit+40ms,unshaped", "rate, in tc's syntax, and round trip")
	chosen := f.String("variants", strings.Join(known, ","), "")
	f.IntVar(&c.runs, "runs", 3, "cold `runs` of each variant; a full pull is done once")
	f.IntVar(&c.pairs, "pairs", 5, "warm runs, with a trace and without in turns; 0: none, and no floor")
	f.StringVar(&c.out, "out", "bin/bench-coldstart", "`folder` for runs.csv, report.json and report.svg")
	f.BoolVar(&c.verbose, "v", false, "print what the daemon notes of each cold run")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	for _, name := range strings.Split(*chosenImages, ",") {
		i := slices.Index(images, name)
		if i < 0 {
			return c, fmt.Errorf("unknown image %q", name)
		}
		c.images = append(c.images, image.ColdStarts()[i])
	}
	for _, name := range strings.Split(*chosen, ",") {
		i := slices.Index(known, name)
		if i < 0 {
			return c, fmt.Errorf("unknown variant %q", name)
		}
		c.variants = append(c.variants, variants[i])
	}
	for _, name := range strings.Split(*lines, ",") {
		l, err := link.ParseLine(name)
		if err != nil {
			return c, err
		}
		c.lines = append(c.lines, l)
	}
	return c, nil
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "coldstart: "+format+"\n", args...)
}

func run(ctx context.Context, c choice) error {
	tools, err := node.Prepare(ctx)
	if err != nil {
		return err
	}
	n, err := node.Start(ctx, node.Options{})
	if err != nil {
		return err
	}
	b := bench{choice: c, n: n, cache: filepath.Join(tools.Cache, "images")}
	err = b.measure(ctx)
	if err != nil && ctx.Err() == nil {
		say("%s", n.Logs())
	}
	// What was measured is worth having whatever happened then.
	err = errors.Join(err, b.report.Table(os.Stdout), write(c.out, b.report))
	return errors.Join(err, n.Shutdown(context.WithoutCancel(ctx)))
}

// write writes the report's files.
func write(dir string, r report.Report) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, form := range map[string]func(io.Writer) error{"runs.csv": r.CSV, "report.json": r.JSON, "report.svg": r.SVG} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if err := errors.Join(form(f), f.Close()); err != nil {
			return fmt.Errorf("writing %s: %w", f.Name(), err)
		}
	}
	return nil
}
