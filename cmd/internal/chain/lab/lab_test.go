package lab_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/chain/lab"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/tracelayer/replay"
)

// node is a node that has nothing, at the near end of a line.
type node struct {
	*lab.Image
	registry *lab.Registry
	client   *lab.Client
	chain    *chain.Chain
	other    ocispec.Descriptor // a blob that no plan has
}

// world returns a registry with an image behind a line.
func world(t testing.TB, rate float64, roundTrip time.Duration, image *lab.Image) *lab.Registry {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making network namespaces takes root")
	}
	line, err := lab.Up(t.Context(), rate, roundTrip)
	if err != nil {
		t.Skipf("no line can be made here: %v", err)
	}
	t.Cleanup(func() {
		if err := line.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	r, err := lab.NewRegistry(line.Netns, line.Far+":5000", image.Blobs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// newNode returns a node without anything cached.
func newNode(t testing.TB, r *lab.Registry, image *lab.Image, other ocispec.Descriptor) *node {
	t.Helper()
	client := new(lab.Client)
	reg, err := registry.New(registry.Config{
		DockerConfig: filepath.Join(t.TempDir(), "none.json"), DialContext: client.Dial, PlainHTTP: []string{r.Host},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reg.Close() })
	c, err := cache.Open(cache.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &node{image, r, client, chain.New(reg, chain.Config{Cache: c}), other}
}

func (n *node) ref() string { return n.registry.Host + "/app:1" }

func (n *node) replay(ctx context.Context) (replay.Stats, error) {
	return n.chain.Replay(ctx, n.ref(), n.Trace, n.Plan, []ocispec.Descriptor{n.Layer})
}

// sample is a read of a blob that no plan has.
type sample struct {
	took      time.Duration
	inFlight  int64         // bytes, when it began
	window    int64         // bytes that might be, by then
	roundTrip time.Duration // of the line, when it began
}

// unrelated reads count times, with pauses, from a blob that no plan has, or
// until done is closed.
func (n *node) unrelated(t testing.TB, count int, done <-chan struct{}) (samples []sample) {
	t.Helper()
	const pause = 10 * time.Millisecond
	b, err := n.chain.Open(n.ref(), n.other)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(uint64(count), 7))
	var window int64
	for i := range count {
		select {
		case <-done:
			return samples
		case <-time.After(pause/2 + rand.N(pause)):
		}
		p := make([]byte, 4096*(1+rng.IntN(4)))
		flight, err := n.client.InFlight(n.registry)
		if err != nil {
			t.Fatal(err)
		}
		line := n.chain.Line(n.ref())
		window = max(window, int64(line.Window))
		start := time.Now()
		if _, err := b.ReadAt(t.Context(), p, int64(i)*(20<<10)); err != nil {
			t.Fatal(err)
		}
		samples = append(samples, sample{time.Since(start), flight, window, line.RoundTrip})
	}
	return samples
}

// quantile returns a quantile of the times in milliseconds.
func quantile(s []sample, q float64) float64 {
	var d []float64
	for _, one := range s {
		d = append(d, float64(one.took.Microseconds())/1e3)
	}
	slices.Sort(d)
	return d[min(int(q*float64(len(d))), len(d)-1)]
}

// mostInFlight returns the largest number of bytes in flight.
func mostInFlight(s []sample) (most int64) {
	for _, one := range s {
		most = max(most, one.inFlight)
	}
	return most
}

// withOther adds a blob that no plan has.
func withOther(t testing.TB, i *lab.Image, size int) ocispec.Descriptor {
	t.Helper()
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(data)
	d := digest.FromBytes(data)
	i.Blobs[d.String()] = data
	return ocispec.Descriptor{Digest: d, Size: int64(size)}
}

// goodput returns how many bytes a second one large GET gets.
func goodput(t testing.TB, r *lab.Registry, i *lab.Image) float64 {
	t.Helper()
	start := time.Now()
	resp, err := http.Get("http://" + r.Host + "/v2/app/blobs/" + i.Trace.Layer.Digest.String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return float64(n) / time.Since(start).Seconds()
}

// BenchmarkReplay measures what a replay gets of a line, compared with one large
// GET, and what reads wait that have nothing to do with it, compared with a line
// that nobody else uses. Reads are a millisecond to 20 apart.
func BenchmarkReplay(b *testing.B) {
	for _, c := range []struct {
		mbit      float64
		roundTrip time.Duration
		size      int64
	}{{25, 0, 24 << 20}, {200, 0, 160 << 20}, {25, 40 * time.Millisecond, 48 << 20}, {200, 40 * time.Millisecond, 160 << 20}} {
		b.Run(fmt.Sprintf("%gmbit/%s", c.mbit, c.roundTrip), func(b *testing.B) {
			image, err := lab.NewImage(c.size, 0.6)
			if err != nil {
				b.Fatal(err)
			}
			other := withOther(b, image, 16<<20)
			rate := c.mbit * 1e6 / 8
			r := world(b, rate, c.roundTrip, image)
			for b.Loop() {
				measure(b, r, image, other)
			}
		})
	}
}

func measure(b *testing.B, r *lab.Registry, image *lab.Image, other ocispec.Descriptor) {
	get := goodput(b, r, image)
	start := time.Now()
	alone := newNode(b, r, image, other)
	stats, err := alone.replay(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	got := float64(stats.Received) / time.Since(start).Seconds()

	n := newNode(b, r, image, other)
	idle := n.unrelated(b, 200, nil)

	n = newNode(b, r, image, other)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	var shared replay.Stats
	go func() {
		shared, _ = n.replay(ctx) //nolint:errcheck // it is cancelled
		close(done)
	}()
	time.Sleep(time.Second)
	busy := n.unrelated(b, 200, done)
	cancel()
	<-done
	plain := besideGET(b, r, newNode(b, r, image, other))
	b.ReportMetric(100*got/get, "%of-GET")
	b.ReportMetric(get*8/1e6, "GET-Mbit/s")
	b.ReportMetric(quantile(idle, 0.5), "p50-idle-ms")
	b.ReportMetric(quantile(idle, 0.99), "p99-idle-ms")
	b.ReportMetric(quantile(plain, 0.5), "p50-beside-GET-ms")
	b.ReportMetric(quantile(plain, 0.99), "p99-beside-GET-ms")
	b.ReportMetric(quantile(busy, 0.5), "p50-busy-ms")
	b.ReportMetric(quantile(busy, 0.99), "p99-busy-ms")
	b.ReportMetric(float64(mostInFlight(busy))/1024, "KiB-in-flight")
	b.ReportMetric(float64(len(busy)), "busy-reads")
	b.Logf("alone %+v\nshared %+v\nline %+v", stats, shared, n.chain.Line(n.ref()))
}

// besideGET makes the reads of unrelated while an ordinary GET has the line.
func besideGET(b *testing.B, r *lab.Registry, n *node) []sample {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Host+"/v2/app/blobs/"+n.Trace.Layer.Digest.String(), nil)
		if err != nil {
			b.Error(err)
			return
		}
		if resp, err := http.DefaultClient.Do(q); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body) // until it is cancelled
			resp.Body.Close()
		}
	}()
	time.Sleep(time.Second)
	samples := n.unrelated(b, 100, done)
	cancel()
	<-done
	return samples
}
