// Command demo shows a lazy start from end to end: it builds an ordinary image
// of some hundred MB from Debian packages, pushes it to a private registry,
// converts it, pulls the result without its data and runs it; then records such a
// start, forgets everything, and does the same with the trace. It prints what both
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
	if err := r.trace(ctx, n, say); err != nil {
		return errors.Join(err, errors.New(n.Logs()))
	}
	if err := r.compare(ctx, n, build, say); err != nil {
		return err
	}
	return r.report(ordinary)
}

// trace records a start of the image that is here, and starts it with the trace
// where nothing is here.
func (r *result) trace(ctx context.Context, n *node.Node, say image.Progress) (err error) {
	old, traced := n.Ref("demo:lazy"), n.Ref("demo:traced")
	say("recording a start: ctr record-trace --time 20 %s %s", old, traced)
	began := time.Now()
	if _, err := n.Containerd.RecordTrace(ctx, nil, old, traced); err != nil {
		return err
	}
	r.recording = time.Since(began)
	say("pushing what was recorded: ctr push %s", traced)
	if _, err := n.Containerd.Push(ctx, traced); err != nil {
		return err
	}
	say("removing all images and the cache, then pulling and running with the trace")
	if err := coldstart.Forget(ctx, n, nil); err != nil {
		return err
	}
	r.traced, err = coldstart.Lazy(ctx, n, "demo:traced")
	if err == nil && r.traced.Stdout != r.start.Stdout {
		err = fmt.Errorf("with the trace the container printed %q, without it %q", r.traced.Stdout, r.start.Stdout)
	}
	return err
}

// result is what was measured.
type result struct {
	conversion time.Duration
	recording  time.Duration
	start      coldstart.Start // without a trace
	traced     coldstart.Start // with it
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
	least := float64(r.cost.Compressed)
	fmt.Printf("\nthe container printed:   %s\n", strings.TrimSpace(r.start.Stdout))
	fmt.Printf("image size:              %6.1f MB compressed, %.1f MB converted\n", float64(before)/mb, float64(size)/mb)
	fmt.Printf("conversion, recording:   %6.2f s, %.2f s\n\n", r.conversion.Seconds(), r.recording.Seconds())
	fmt.Printf("%-24s %15s %15s\n", "cold start", "without trace", "with trace")
	for _, row := range []struct {
		name, unit string
		value      func(coldstart.Start) float64
	}{
		{"pull", "s", func(s coldstart.Start) float64 { return s.Pull.Seconds() }},
		{"pull to first output", "s", func(s coldstart.Start) float64 { return s.Ready().Seconds() }},
		{"requests", "", func(s coldstart.Start) float64 { return float64(s.Stats.Requests) }},
		{"fetched", "MB", func(s coldstart.Start) float64 { return float64(s.Stats.Bytes) / mb }},
		{"fetched / image", "%", func(s coldstart.Start) float64 { return 100 * float64(s.Stats.Bytes) / float64(size) }},
		{"fetched / least", "", func(s coldstart.Start) float64 { return float64(s.Stats.Bytes) / least }},
	} {
		format := "%-24s %12.2f %2s %12.2f %2s\n"
		if row.name == "requests" {
			format = "%-24s %12.0f %2s %12.0f %2s\n"
		}
		fmt.Printf(format, row.name, row.value(r.start), row.unit, row.value(r.traced), row.unit)
	}
	fmt.Printf("\nEvery byte was verified. The least are the %.2f MB of compressed blocks that the same\ncommand touches on a plain loop device.\n\n", least/mb)
	return nil
}
