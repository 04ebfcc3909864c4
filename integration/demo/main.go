// Command demo shows a lazy start from end to end: it builds an overlaybd
// image of some hundred MB from Debian packages, pushes it to a private
// registry, pulls it without its data, runs it, and prints what that took. It
// needs root and cleans up after itself; only the cache outside the source
// tree stays.
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
	build := image.Build{Name: "scipy-ext4", Rootfs: image.Scipy(),
		Format: image.Overlaybd{FSType: image.Ext4}, Args: image.ScipyCommand()}
	layout, err := build.Make(ctx, filepath.Join(tools.Cache, "images"), say)
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
	if err := n.Push(ctx, layout, "demo:1"); err != nil {
		return err
	}
	say("pulling lazily, then running: %s", strings.Join(build.Args, " "))
	start, err := coldstart.Lazy(ctx, n, "demo:1")
	if err != nil {
		if ctx.Err() == nil {
			err = errors.Join(err, errors.New(n.Logs()))
		}
		return err
	}
	say("running the same on a plain loop device, to see what it reads at the least")
	least, cost, err := coldstart.Least(ctx, n, layout, build)
	if err != nil {
		return err
	}
	if least.Stdout != start.Stdout {
		return fmt.Errorf("the container printed %q, on a plain loop device %q", start.Stdout, least.Stdout)
	}
	return report(layout, start, cost)
}

func report(l image.Layout, s coldstart.Start, cost reference.Cost) error {
	size, err := l.Size()
	if err != nil {
		return err
	}
	const mb = 1e6
	fetched := float64(s.Stats.Bytes)
	fmt.Printf("\nthe container printed:   %s\n", strings.TrimSpace(s.Stdout))
	fmt.Printf("pull:                    %6.2f s, %d requests, %.1f kB\n", s.Pull.Seconds(), s.PullStats.Requests, float64(s.PullStats.Bytes)/1e3)
	fmt.Printf("pull to first output:    %6.2f s\n", s.Ready().Seconds())
	fmt.Printf("image size:              %6.1f MB compressed\n", float64(size)/mb)
	fmt.Printf("fetched in all:          %6.2f MB in %d requests (%.1f %% of the image)\n", fetched/mb, s.Stats.Requests, 100*fetched/float64(size))
	fmt.Printf("least possible:          %6.2f MB (the compressed blocks that the same command touches on a plain loop device)\n", float64(cost.Compressed)/mb)
	fmt.Printf("fetched / least:         %6.3f\n\n", fetched/float64(cost.Compressed))
	return nil
}
