package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/integration/registrycache/blast"
	"github.com/reprise-containers/reprise/integration/registrycache/instance"
	"github.com/reprise-containers/reprise/integration/registrycache/origin"
)

const (
	hitConnections = 100
	hitRounds      = 5
	hitFor         = 3 * time.Second // of a round, for each peer
)

// hits measures blobs that are there, from every peer over and over in turn.
func (b bench) hits(ctx context.Context) error {
	if err := b.hitsOf(ctx, 64<<20, 4); err != nil {
		return err
	}
	return b.hitsOf(ctx, 4<<10, 1000)
}

// asking is what is shown beside the cache that does not ask for permission:
// with one HEAD for each hit, to an upstream on the same machine.
const asking = "registry-cache, asking"

func (b bench) hitsOf(ctx context.Context, size int64, count int) (err error) {
	dir, err := os.MkdirTemp("", "reprise-hits-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	blobs := make([]*origin.Content, count)
	up, err := origin.Listen()
	if err != nil {
		return err
	}
	defer up.Close()
	for i := range blobs {
		blobs[i] = origin.Random(uint64(i)+1, size)
		up.AddBlob("bench/blobs", blobs[i])
	}
	peers, err := b.hitPeers(ctx, dir, up, blobs)
	defer func() {
		for _, p := range peers {
			p.stop()
		}
	}()
	if err != nil {
		return err
	}
	paths := make([]string, count)
	for i, c := range blobs {
		paths[i] = blobPath(c)
	}
	results := make([][]measured, len(peers))
	for range hitRounds {
		for i, p := range peers {
			m, err := p.measure(ctx, blast.Load{Paths: paths, Connections: hitConnections, For: hitFor, Size: size})
			if err != nil {
				return err
			}
			results[i] = append(results[i], m)
		}
	}
	fmt.Printf("\nHits on %d blobs of %d bytes, %d connections, medians of %d rounds of %v\n", count, size, hitConnections, hitRounds, hitFor)
	printHits(peers, results)
	return nil
}

// hitPeers starts all peers and has each of them hold all blobs.
func (b bench) hitPeers(ctx context.Context, dir string, up *origin.Origin, blobs []*origin.Content) (peers []peer, err error) {
	add := func(p peer, err error) error {
		if err != nil {
			return err
		}
		peers = append(peers, p)
		same := p.name == "net/http" // gives everybody the first blob
		return warm(ctx, p, blobs, same)
	}
	program, err := instance.Build(ctx, b.tools.Module, dir, "-trimpath", "-ldflags", "-s -w")
	if err != nil {
		return nil, err
	}
	start := func(name, folder string, over instance.Values) error {
		p, _, err := b.cached(ctx, name, program, filepath.Join(dir, folder), up.Address, over)
		return add(p, err)
	}
	if err := start("registry-cache", "trusting", instance.Values{"permission": instance.Values{"policy": "trusted"}}); err != nil {
		return peers, err
	}
	if err := add(b.nginx(ctx, dir, blobs)); err != nil {
		return peers, err
	}
	if err := add(b.bare(ctx, dir, blobs[0].Size)); err != nil {
		return peers, err
	}
	if err := add(b.distribution(ctx, dir, up.Address)); err != nil {
		return peers, err
	}
	return peers, start(asking, "asking", nil)
}

// warm reads every blob once and checks it.
func warm(ctx context.Context, p peer, blobs []*origin.Content, same bool) error {
	for _, c := range blobs {
		want := c.Digest
		if same {
			want = blobs[0].Digest
		}
		if err := readBlob(ctx, p.address, c, want); err != nil {
			return fmt.Errorf("filling %s: %w", p.name, err)
		}
	}
	// Some store in the background: the second read is the first hit.
	time.Sleep(time.Second)
	return readBlob(ctx, p.address, blobs[0], blobs[0].Digest)
}

func readBlob(ctx context.Context, address string, c *origin.Content, want digest.Digest) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+blobPath(c), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	h := sha256.New()
	if _, err := io.Copy(h, resp.Body); err != nil {
		return err
	}
	if got := digest.NewDigest(digest.SHA256, h); got != want {
		return fmt.Errorf("%s: %s is %s", resp.Status, want, got)
	}
	return nil
}

// measured is a round of one peer.
type measured struct {
	blast.Result
	cpu time.Duration // of the server, a request
}

func (p peer) measure(ctx context.Context, l blast.Load) (measured, error) {
	l.Address = p.address
	before, err := p.cpu()
	if err != nil {
		return measured{}, err
	}
	r, err := l.Run(ctx)
	if err != nil {
		return measured{}, fmt.Errorf("%s: %w", p.name, err)
	}
	after, err := p.cpu()
	return measured{r, (after - before) / time.Duration(max(r.Requests, 1))}, err
}

// middle returns the middle one of what f says of the rounds.
func middle(rounds []measured, f func(measured) float64) float64 {
	var all []float64
	for _, r := range rounds {
		all = append(all, f(r))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// printHits prints a line a peer. Ratios are of one round, in which all peers
// were measured one after the other; what is shown is the median of them.
func printHits(peers []peer, results [][]measured) {
	fmt.Printf("%-24s %10s %8s %9s %9s %10s %12s %12s\n", "", "requests/s", "MB/s", "p50", "p99", "CPU us/req", "ours/its", "its CPU/ours")
	ms := func(q float64) func(measured) float64 {
		return func(m measured) float64 { return float64(m.Quantile(q)) / 1e6 }
	}
	for i, p := range peers {
		rate := make([]measured, 0, len(results[i]))
		ratios, cpus := []float64{}, []float64{}
		for round, m := range results[i] {
			rate = append(rate, m)
			ratios = append(ratios, results[0][round].Rate()/m.Rate())
			cpus = append(cpus, float64(m.cpu)/float64(max(results[0][round].cpu, 1)))
		}
		slices.Sort(ratios)
		slices.Sort(cpus)
		fmt.Printf("%-24s %10.0f %8.0f %7.2fms %7.2fms %10.1f %12.2f %12.2f\n", p.name,
			middle(rate, func(m measured) float64 { return m.Rate() }),
			middle(rate, func(m measured) float64 { return m.Throughput() / 1e6 }),
			middle(rate, ms(0.5)), middle(rate, ms(0.99)),
			middle(rate, func(m measured) float64 { return float64(m.cpu) / 1e3 }),
			ratios[len(ratios)/2], cpus[len(cpus)/2])
	}
}
