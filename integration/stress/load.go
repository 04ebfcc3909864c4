package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/integration/load/files"
	"github.com/reprise-containers/reprise/integration/load/sectors"
	"github.com/reprise-containers/reprise/integration/load/trees"
	"github.com/reprise-containers/reprise/integration/memgroup"
)

// argument is what makes this program the load: it enters a control group and
// loads file systems until it gets SIGTERM, printing what it has done every
// second; then it compares what is there with what must be, and ends.
const argument = "stress-load"

// progress is what parts of the load have done.
type progress map[string]int64

// loadChild does the work of the load: argument GROUP SCRATCH ROOT...
func loadChild(args []string) (code int, ok bool) {
	if len(args) < 5 || args[1] != argument {
		return 0, false
	}
	err := memgroup.Enter(args[2])
	if err == nil {
		err = load(args[3], args[4:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		return 1, true
	}
	return 0, true
}

// target is a file system under load.
type target struct {
	root  string
	files *files.Load
	trees *trees.Load
	inner *sectors.Load
	disk  *sectors.Opened
	fio   atomic.Int64 // runs
}

const innerSize = 32 << 20

func load(scratch string, roots []string) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	var targets []*target
	for i, root := range roots {
		t, err := newTarget(scratch, root, uint64(i))
		if err != nil {
			return err
		}
		targets = append(targets, t)
		t.start(ctx, g)
	}
	g.Go(func() error { return report(ctx, targets) })
	if err := g.Wait(); err != nil {
		return err
	}
	for _, t := range targets {
		if err := t.verify(); err != nil {
			return err
		}
	}
	return nil
}

func newTarget(scratch, root string, seed uint64) (*target, error) {
	t := &target{root: root, files: files.New(3, seed)}
	inner := filepath.Join(root, "inner")
	err := errors.Join(os.WriteFile(inner, nil, 0o600), os.Truncate(inner, innerSize), os.Mkdir(filepath.Join(root, "fio"), 0o755))
	if err == nil {
		t.trees, err = trees.New(filepath.Join(scratch, fmt.Sprintf("archive-%d", seed)), 600, seed)
	}
	if err == nil {
		t.inner, err = sectors.New(innerSize, 2, seed)
	}
	if err == nil {
		t.disk, err = sectors.Open(inner)
	}
	return t, err
}

func (t *target) start(ctx context.Context, g *errgroup.Group) {
	g.Go(func() error { return t.files.Run(ctx, t.root) })
	g.Go(func() error { return t.trees.Run(ctx, t.root, 2) })
	g.Go(func() error { return t.inner.Run(ctx, t.disk) })
	g.Go(func() error {
		return t.repeat(ctx, "--name=verified", "--rw=randwrite", "--bs=8k", "--size=48m", "--fsync=200", "--verify=crc32c")
	})
	g.Go(func() error {
		return t.repeat(ctx, "--name=mixed", "--rw=randrw", "--bsrange=512-128k", "--size=64m", "--io_size=64m", "--fdatasync=100")
	})
}

// repeat runs fio over and over.
func (t *target) repeat(ctx context.Context, args ...string) error {
	args = append(args, "--directory="+filepath.Join(t.root, "fio"), "--thread", "--ioengine=psync", "--alloc-size=1024",
		"--verify_fatal=1", "--output-format=terse", "--randseed="+strconv.FormatInt(t.fio.Load(), 10))
	for ctx.Err() == nil {
		if out, err := exec.Command("fio", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("running fio %s in %s: %w: %s", args[0], t.root, err, strings.TrimSpace(string(out)))
		}
		t.fio.Add(1)
	}
	return nil
}

// report prints a line every second.
func report(ctx context.Context, targets []*target) error {
	for ctx.Err() == nil {
		p := progress{}
		for _, t := range targets {
			name := filepath.Base(t.root)
			p[name+" files"], p[name+" trees"], p[name+" fio"] = t.files.Done(), t.trees.Done(), t.fio.Load()
			for k, n := range t.inner.Done() {
				p[name+" file "+sectors.Kind(k).String()] = n
			}
		}
		if err := json.NewEncoder(os.Stdout).Encode(p); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// verify compares what is there with all that was done.
func (t *target) verify() error {
	_, err := t.files.Check(t.root, t.files.Acknowledged())
	for i := range 2 {
		err = errors.Join(err, t.trees.Compare(filepath.Join(t.root, fmt.Sprintf("tree-%d", i))))
	}
	_, inner := t.inner.Check(t.disk, t.inner.Acknowledged())
	if err := errors.Join(err, inner, t.disk.Close()); err != nil {
		return fmt.Errorf("comparing %s: %w", t.root, err)
	}
	return nil
}
