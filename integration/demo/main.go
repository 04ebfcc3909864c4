// Command demo shows a lazy start from end to end: it builds an ordinary image
// of some hundred MB from Debian packages, pushes it to a private registry,
// converts it, pulls the result without its data, runs it, and prints what that
// took. It needs root and cleans up after itself; only the cache outside the
// source tree stays.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/reprise-containers/reprise/integration/coldstart"
	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/reference"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// say prints a line about what is going on, with the time since the start.
func say() image.Progress {
	start := time.Now()
	return func(format string, args ...any) {
		fmt.Printf("[%5.1fs] %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}
}

func run(ctx context.Context) (err error) {
	say := say()
	tools, err := node.Prepare(ctx)
	if err != nil {
		return err
	}
	build := image.Build{Name: "scipy-plain", Rootfs: image.Scipy(), Args: image.ScipyCommand()}
	ordinary, err := build.Make(ctx, filepath.Join(tools.Cache, "images"), say)
	if err != nil {
		return err
	}
	say("starting containerd, a registry and the snapshotter")
	n, err := node.Start(ctx, node.Options{})
	if err != nil {
		return err
	}
	defer func() {
		say("cleaning up")
		// The interrupt that may have ended the demo must not end this.
		err = errors.Join(err, n.Shutdown(context.WithoutCancel(ctx)))
	}()
	say("pushing the image")
	if err := n.Push(ctx, ordinary, "demo:ordinary"); err != nil {
		return err
	}
	say("converting it: reprise convert %s %s", n.Ref("demo:ordinary"), n.Ref("demo:lazy"))
	began := time.Now()
	if _, err := n.Convert(ctx, n.Ref("demo:ordinary"), n.Ref("demo:lazy")); err != nil {
		return err
	}
	r := result{conversion: time.Since(began)}
	say("pulling lazily, then running: %s", strings.Join(build.Args, " "))
	if r.start, err = coldstart.Lazy(ctx, n, "demo:lazy"); err != nil {
		if ctx.Err() == nil {
			err = errors.Join(err, errors.New(n.Logs()))
		}
		return err
	}
	if err := r.compare(ctx, n, build, say); err != nil {
		return err
	}
	return r.report(ordinary)
}

// result is what was measured.
type result struct {
	conversion time.Duration
	start      coldstart.Start
	converted  image.Layout
	cost       reference.Cost
}

// compare runs the command on a plain loop device with the converted image's
// file system, to see what it reads at the least.
func (r *result) compare(ctx context.Context, n *node.Node, build image.Build, say image.Progress) error {
	say("running the same on a plain loop device, to see what it reads at the least")
	var err error
	if r.converted, err = coldstart.Convert(ctx, n, n.Ref("demo:lazy"), n.Path("converted")); err != nil {
		return fmt.Errorf("copying the converted image: %w", err)
	}
	build.Format.FSType = image.Erofs
	least, cost, err := coldstart.Least(ctx, n, r.converted, build)
	if err != nil {
		return err
	}
	if least.Stdout != r.start.Stdout {
		return fmt.Errorf("the container printed %q, on a plain loop device %q", r.start.Stdout, least.Stdout)
	}
	r.cost = cost
	return nil
}

func (r *result) report(ordinary image.Layout) error {
	before, err := ordinary.Size()
	if err != nil {
		return err
	}
	size, err := r.converted.Size()
	if err != nil {
		return err
	}
	const mb = 1e6
	s := r.start
	fetched := float64(s.Stats.Bytes)
	fmt.Printf("\nthe container printed:   %s\n", strings.TrimSpace(s.Stdout))
	fmt.Printf("image size:              %6.1f MB compressed, %.1f MB converted\n", float64(before)/mb, float64(size)/mb)
	fmt.Printf("conversion:              %6.2f s\n", r.conversion.Seconds())
	fmt.Printf("pull:                    %6.2f s, %d requests, %.1f kB\n", s.Pull.Seconds(), s.PullStats.Requests, float64(s.PullStats.Bytes)/1e3)
	fmt.Printf("pull to first output:    %6.2f s\n", s.Ready().Seconds())
	fmt.Printf("fetched in all:          %6.2f MB in %d requests (%.1f %% of the image), every byte verified\n", fetched/mb, s.Stats.Requests, 100*fetched/float64(size))
	fmt.Printf("least possible:          %6.2f MB (the compressed blocks that the same command touches on a plain loop device)\n", float64(r.cost.Compressed)/mb)
	fmt.Printf("fetched / least:         %6.3f\n\n", fetched/float64(r.cost.Compressed))
	return nil
}
