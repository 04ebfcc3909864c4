// Command bench measures what only the whole stack shows, each time against
// something run beside it, and prints ratios: absolute times mean little on a
// shared machine. Arguments choose benchmarks by letter; without any, all run.
//
//	a  reads with everything cached, against a plain loop device; small files behind a slow registry
//	b  the reader and
//	c  the index lookup, against the bare libraries
//	d  resident memory of the daemon
//	f  read latency while another image's registry hangs
//	h  hits of the registry cache, against nginx, net/http and distribution
//	m  its memory with many blobs and connections
//	n  cold starts through it, the registry far away, against a registry on the spot
//	r  its engine's hits on recorded requests, against a simulator
//	s  bytes from the upstream per byte that 150 clients at once asked for
//	x  a closed loop of trace-replayer, against a bare net/http client and wrk
//	y  its simulation of recorded requests, against a bare loop over a map
//	u  its memory with long traces
//	g  conversion, against mkfs.erofs and eStargz; the memory it takes
//	p  reads that somebody waits for while a replay keeps the line full
//	l  bytes of a start by file system,
//	t  by chunk table, and
//	z  by compression
//	v  reads that are verified, against the same unverified
//	w  writing to ext4 on a writable device, against a plain loop device
//	q  the shared tier and what is fetched from it, against the S3 client library alone; hits
//	   in memory, against that and hits on disk
//	k  committing a layer, against reading and compressing it with the bare libraries
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/reprise-containers/reprise/integration/blockd"
	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/sandbox"
)

// bench is what all benchmarks share.
type bench struct {
	tools sandbox.Tools
}

func main() {
	if code, ok := blockd.Child(os.Args); ok {
		os.Exit(code)
	}
	if len(os.Args) == 4 && os.Args[1] == bareChild {
		size, err := strconv.ParseInt(os.Args[3], 10, 64)
		if err == nil {
			err = serveBare(os.Args[2], size)
		}
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if len(os.Args) == 3 && os.Args[1] == bareClient {
		took, err := askBare(os.Args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		fmt.Print(took)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, chosen []string) error {
	tools, err := node.Prepare(ctx)
	if err != nil {
		return err
	}
	b := bench{tools}
	for _, x := range []struct {
		letter string
		run    func(context.Context) error
	}{
		{"a", b.stacks}, {"a", b.slowRegistry},
		{"b", b.library("Reader", "./backstore/...")},
		{"c", b.library("Lookup", "./backstore/...")},
		{"d", b.memory}, {"f", b.hanging},
		{"g", b.conversions}, {"g", b.conversionMemory},
		{"p", b.library("Replay", "./cmd/internal/chain/lab")},
		{"l", b.layouts}, {"t", b.chunkTables}, {"z", b.compressions},
		{"v", b.library("Verify", "./cmd/internal/chain/tamper")},
		{"w", b.writes},
		{"h", b.hits}, {"m", b.cacheMemory}, {"n", b.near},
		{"r", b.trial("ReplayEngine")}, {"s", b.trial("^TestSwarm")},
		{"x", b.replays}, {"y", b.library("SimulateLRU", "./cache/workload/simulate", "-benchtime", "50x")}, {"u", b.replayMemory},
		{"q", b.library("S3|Dir", "./cache/cluster/tier", "-benchtime", "10x", "-cpu", "2")},
		{"q", b.library("Promotion", "./cache/cluster", "-benchtime", "10x", "-cpu", "2")},
		{"q", b.library("Levels", "./integration/registrycache", "-benchtime", "5x", "-cpu", "2")},
		{"k", b.library("Commit$", "./backstore", "-benchtime", "20x")},
	} {
		if len(chosen) > 0 && !slices.Contains(chosen, x.letter) {
			continue
		}
		if err := x.run(ctx); err != nil {
			return fmt.Errorf("benchmark %s: %w", x.letter, err)
		}
	}
	return nil
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

func (b bench) image(ctx context.Context, i image.Build) (image.Layout, error) {
	return i.Make(ctx, filepath.Join(b.tools.Cache, "images"), say)
}

// onNode runs f on a new node with an image in its registry.
func (b bench) onNode(ctx context.Context, o node.Options, f func(*node.Node) error) error {
	n, err := node.Start(ctx, o)
	if err != nil {
		return err
	}
	err = f(n)
	if err != nil {
		say("%s", n.Logs())
	}
	if end := n.Shutdown(context.WithoutCancel(ctx)); err == nil {
		err = end
	}
	return err
}

// trial runs tests of the registry cache by name, in the sizes that are too large
// for a test that is run often.
func (b bench) trial(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		fmt.Printf("\n%s, in full size\n", name)
		cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-run", name, "./integration/registrycache")
		cmd.Dir = b.tools.Module
		cmd.Env = append(os.Environ(), "TRIAL=full")
		out, err := cmd.CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "_test.go:") || strings.HasPrefix(line, "--- ") || err != nil {
				fmt.Print(line)
			}
		}
		return err
	}
}

// library runs Go benchmarks by name, which print their ratios themselves, with
// more flags of go test.
func (b bench) library(name, packages string, flags ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		fmt.Printf("\n%s benchmarks\n", strings.TrimSuffix(name, "$"))
		args := slices.Concat([]string{"test", "-run", "^$", "-bench", name, "-cpu", "1"}, flags, []string{packages})
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = b.tools.Module
		out, err := cmd.CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if strings.HasPrefix(line, "Benchmark") || err != nil {
				fmt.Print(line)
			}
		}
		return err
	}
}
