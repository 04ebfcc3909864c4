package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/reprise-containers/reprise/integration/coldstart"
	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/registrycache/instance"
	"github.com/reprise-containers/reprise/integration/sandbox/wire"
)

const (
	farAway    = 40 * time.Millisecond // of each answer of the upstream
	nearRounds = 5
)

// near measures cold starts of a lazily loaded image from a registry on the spot,
// and through a cache that has it while the registry is 40 ms away.
func (b bench) near(ctx context.Context) error {
	start := image.Starts()[0]
	l, err := start.Layered().Make(ctx, filepath.Join(b.tools.Cache, "images"), say)
	if err != nil {
		return err
	}
	return b.onNode(ctx, node.Options{}, func(n *node.Node) error {
		if err := n.Push(ctx, l, "originals/near:1"); err != nil {
			return err
		}
		if _, err := n.Convert(ctx, n.Registry.Address+"/originals/near:1", n.Registry.Address+"/near:1"); err != nil {
			return err
		}
		return b.nearOn(ctx, n)
	})
}

func (b bench) nearOn(ctx context.Context, n *node.Node) error {
	dir, err := os.MkdirTemp("", "reprise-near-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program, err := instance.Build(ctx, b.tools.Module, dir, "-trimpath", "-ldflags", "-s -w")
	if err != nil {
		return err
	}
	// The cache reaches the registry by a proxy of its own, which is far away.
	far, err := wire.Listen(n.Registry.Address)
	if err != nil {
		return err
	}
	defer far.Close()
	far.SetRule(func(*http.Request) wire.Fault { return wire.Fault{Delay: farAway} })
	p, _, err := b.cached(ctx, "registry-cache", program, filepath.Join(dir, "cache"), "", instance.Values{"server": instance.Values{
		"registries": instance.Values{n.Proxy.Address: instance.Values{"host": far.Address, "scheme": "http"}},
	}})
	if err != nil {
		return err
	}
	defer p.stop()
	hosts := n.Path("hosts", n.Proxy.Address)
	if err := os.MkdirAll(hosts, 0o755); err != nil {
		return err
	}
	config := filepath.Join(hosts, "hosts.toml")
	by := func(address string) error {
		text := fmt.Appendf(nil, "server = \"http://%s\"\n[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", n.Proxy.Address, address)
		return os.WriteFile(config, text, 0o644)
	}
	var direct, cached []time.Duration
	for i := range nearRounds + 1 {
		// Past the node's own counting proxy: nothing is between them.
		if err := by(n.Registry.Address); err != nil {
			return err
		}
		d, err := nearStart(ctx, n)
		if err != nil {
			return err
		}
		if err := by(p.address); err != nil {
			return err
		}
		far.Reset()
		c, err := nearStart(ctx, n)
		if err != nil {
			return err
		}
		if i == 0 { // the first one fills the cache
			continue
		}
		s := far.Stats()
		say("on the spot %v, through the cache %v; %d requests to the far registry, %d bytes of blobs", d, c, s.Requests, s.BlobBytes)
		direct, cached = append(direct, d), append(cached, c)
	}
	slices.Sort(direct)
	slices.Sort(cached)
	d, c := direct[len(direct)/2], cached[len(cached)/2]
	fmt.Printf("\nCold start of a lazily loaded image (redis), medians of %d\n%v from a registry on the spot, %v through a cache that has it, the registry %v away: %.2f\n",
		nearRounds, d.Round(time.Millisecond), c.Round(time.Millisecond), farAway, float64(c)/float64(d))
	return nil
}

// nearStart starts the image on a node that has nothing.
func nearStart(ctx context.Context, n *node.Node) (time.Duration, error) {
	if err := coldstart.Forget(ctx, n, nil); err != nil {
		return 0, err
	}
	hosts := []string{"--hosts-dir", n.Path("hosts")}
	begin := time.Now()
	if _, err := n.Containerd.Rpull(ctx, n.Ref("near:1"), hosts...); err != nil {
		return 0, err
	}
	if _, err := n.Containerd.RunContainer(ctx, "overlaybd", n.Ref("near:1"), "near"); err != nil {
		return 0, err
	}
	return time.Since(begin), nil
}
