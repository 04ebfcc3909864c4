// Package coldstart measures what it takes from an image in a registry to the
// first output of a container, in time and in bytes.
package coldstart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/sandbox/wire"
)

// Start is what one start took.
type Start struct {
	// Begin is when the pull began.
	Begin time.Time
	// Pull is the time of the pull, Output from then to the first output,
	// Run from then to the end of the container.
	Pull, Output, Run time.Duration
	// PullStats and Stats are what crossed the network in the pull, and
	// until nothing moved any more after the container's end.
	PullStats, Stats wire.Stats
	// Reads is what the daemon counted until the first output; of a full
	// pull it is nothing.
	Reads Reads
	// Stdout is what the container printed.
	Stdout string
}

// Ready is the time from the start of the pull to the first output.
func (s Start) Ready() time.Duration { return s.Pull + s.Output }

// Lazy pulls the image "repository:tag" with rpull and runs its command.
func Lazy(ctx context.Context, n *node.Node, name string) (Start, error) {
	return measure(ctx, n, "overlaybd", name, func() error {
		_, err := n.Containerd.Rpull(ctx, n.Ref(name), "--plain-http")
		return err
	})
}

// Full pulls the whole image, unpacks it for overlayfs, and runs its command.
func Full(ctx context.Context, n *node.Node, name string) (Start, error) {
	return measure(ctx, n, "overlayfs", name, func() error {
		_, err := n.Containerd.Ctr(ctx, "image", "pull", "--plain-http", "--snapshotter", "overlayfs", n.Ref(name))
		return err
	})
}

// Forget removes all images of the node and everything that the snapshotter
// has cached of them. Its configuration is what extra, by table, says from then
// on.
func Forget(ctx context.Context, n *node.Node, extra map[string]string) error {
	if err := n.Containerd.Empty(ctx); err != nil {
		return fmt.Errorf("forgetting all images: %w", err)
	}
	n.Snapshotter.Stop(ctx)
	if err := errors.Join(os.RemoveAll(n.Path("snapshotter", "cache")), n.Snapshotter.Reconfigure(ctx, extra)); err != nil {
		return fmt.Errorf("forgetting all cached data: %w", err)
	}
	return nil
}

func measure(ctx context.Context, n *node.Node, snapshotter, name string, pull func() error) (Start, error) {
	var s Start
	before, err := countReads(ctx, n.Snapshotter)
	if err != nil {
		return s, err
	}
	n.Proxy.Reset()
	begin := time.Now()
	if err := pull(); err != nil {
		return s, fmt.Errorf("pulling %s: %w", name, err)
	}
	pulled := time.Now()
	s.PullStats = n.Proxy.Stats()
	out := &firstByte{then: func() (err error) {
		s.Reads, err = countReads(ctx, n.Snapshotter)
		return err
	}}
	err = n.RunTo(ctx, out, n.Tools.Bin+"/ctr", "--address", n.Containerd.Address, "--namespace", n.Namespace,
		"run", "--rm", "--fifo-dir", n.Path("fifo"), "--snapshotter", snapshotter, n.Ref(name), "cold")
	if err != nil {
		return s, err
	}
	if out.first.IsZero() {
		return s, fmt.Errorf("starting %s: it printed nothing", name)
	}
	s.Begin, s.Pull, s.Output, s.Run = begin, pulled.Sub(begin), out.first.Sub(pulled), time.Since(pulled)
	s.Stdout, s.Reads = out.text.String(), s.Reads.since(before)
	s.Stats = settle(n.Proxy)
	return s, nil
}

// firstByte notes when the first byte was written to it, and calls then.
type firstByte struct {
	then func() error

	mu    sync.Mutex
	first time.Time
	text  bytes.Buffer
}

func (w *firstByte) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first.IsZero() {
		w.first = time.Now()
		if err := w.then(); err != nil {
			return 0, err
		}
	}
	return w.text.Write(p)
}

// settle waits until nothing crosses the proxy any more, at most ten seconds,
// and returns what has.
func settle(p *wire.Proxy) wire.Stats {
	const quiet = 500 * time.Millisecond
	last := p.Stats()
	for since, start := time.Now(), time.Now(); time.Since(since) < quiet && time.Since(start) < 10*time.Second; {
		time.Sleep(20 * time.Millisecond)
		now := p.Stats()
		if p.InFlight() > 0 || now.Requests != last.Requests {
			since = time.Now()
		}
		last = now
	}
	return last
}
