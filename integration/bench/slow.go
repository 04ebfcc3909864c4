package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/sandbox/wire"
)

// backendDelay is what each request to the slow registry takes longer.
const backendDelay = 5 * time.Millisecond

// slowRegistry reads a tree of small files of a cold image behind a registry
// that takes its time.
func (b bench) slowRegistry(ctx context.Context) error {
	fmt.Printf("\nTree of 2000 small files, cold, behind a registry that takes %v a request\n", backendDelay)
	fmt.Printf("%-7s %8s %9s %10s %10s %10s\n", "", "readers", "MB/s", "requests", "in flight", "MB fetched")
	var tree int64
	for path, size := range image.Bench().Generated {
		if strings.HasPrefix(path, "tree/") {
			tree += size
		}
	}
	for _, fs := range []image.FSType{image.Ext4, image.Erofs} {
		l, err := b.image(ctx, benchImage(fs))
		if err != nil {
			return err
		}
		for _, readers := range []int{1, 8} {
			err := b.onNode(ctx, node.Options{}, func(n *node.Node) error {
				took, got, err := readTree(ctx, n, l, readers)
				if err == nil {
					fmt.Printf("%-7s %8d %9.1f %10d %10d %10.1f\n", fs, readers, float64(tree)/1e6/took.Seconds(),
						got.Requests, got.MaxInFlight, float64(got.Bytes)/1e6)
				}
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func readTree(ctx context.Context, n *node.Node, l image.Layout, readers int) (time.Duration, wire.Stats, error) {
	if err := n.Push(ctx, l, "slow:1"); err != nil {
		return 0, wire.Stats{}, err
	}
	view, done, err := mountView(ctx, n, "slow:1")
	if err != nil {
		return 0, wire.Stats{}, err
	}
	n.Proxy.SetRule(func(*http.Request) wire.Fault { return wire.Fault{Delay: backendDelay} })
	n.Proxy.Reset()
	start := time.Now()
	_, err = n.Run(ctx, "/bin/sh", "-c", fmt.Sprintf(`cd "$1/tree" && ls | xargs -P %d -n 1 sh -c 'cat "$0"/* >/dev/null'`, readers), "sh", view)
	took := time.Since(start)
	if end := done(); err == nil {
		err = end
	}
	return took, n.Proxy.Stats(), err
}
