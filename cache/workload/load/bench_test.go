package load_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/workload/content"
	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

const benchThreads = 8

// blobServer is a bare handler with one small blob.
func blobServer(b *testing.B, size int64) (*httptest.Server, string, digest.Digest) {
	p, err := io.ReadAll(content.New(1, false).Body("blob", size))
	if err != nil {
		b.Fatal(err)
	}
	d := digest.FromBytes(p)
	length := []string{strconv.Itoa(len(p))}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Length"] = length
		w.Write(p)
	}))
	b.Cleanup(s.Close)
	return s, "/v2/bench/blobs/" + d.String(), d
}

// many is a source of one item, over and over.
type many struct {
	item load.Item
	left int
	gap  time.Duration
}

func (m *many) Next(context.Context) (load.Item, error) {
	if m.left == 0 {
		return load.Item{}, io.EOF
	}
	m.left--
	m.item.Seq++
	m.item.Due += m.gap
	return m.item, nil
}

// bare is the loop to compare with: a client of net/http that reads and throws away.
func bare(b *testing.B, client *http.Client, url string, n int) time.Duration {
	work := make(chan struct{}, n)
	for range n {
		work <- struct{}{}
	}
	close(work)
	began := time.Now()
	var g sync.WaitGroup
	for range benchThreads {
		g.Go(func() {
			for range work {
				r, err := client.Get(url)
				if err != nil {
					b.Error(err)
					return
				}
				io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
		})
	}
	g.Wait()
	return time.Since(began)
}

// BenchmarkAgainstBare compares a closed loop of the engine, with digests compared and
// every result told, with a bare loop of net/http over as many connections to the same
// server, in turns.
func BenchmarkAgainstBare(b *testing.B) {
	for _, size := range []int64{4 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s, path, d := blobServer(b, size)
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchThreads}}
			defer client.CloseIdleConnections()
			cfg := to(s)
			cfg.Closed, cfg.Threads, cfg.Seed = true, benchThreads, 1
			item := load.Item{Op: load.Get, Kind: trace.Blob, URI: "blob", Path: path, Digest: d, Size: size}
			const each = 10_000
			var ratios []float64
			var ours time.Duration
			n := 0
			for b.Loop() {
				bareTime := bare(b, client, s.URL+path, each)
				e, err := load.New(cfg)
				if err != nil {
					b.Fatal(err)
				}
				began := time.Now()
				if _, err := e.Run(context.Background(), &many{item: item, left: each}, func(r load.Result) {
					if r.Cause != "" {
						b.Errorf("%+v", r)
					}
				}); err != nil {
					b.Fatal(err)
				}
				took := time.Since(began)
				e.Close()
				ours += took
				n += each
				ratios = append(ratios, float64(bareTime)/float64(took))
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "ratio")
			b.ReportMetric(float64(n)/ours.Seconds(), "req/s")
		})
	}
}

// BenchmarkItem is one request after the other, with what it allocates.
func BenchmarkItem(b *testing.B) {
	s, path, d := blobServer(b, 4<<10)
	cfg := to(s)
	cfg.Closed = true
	e, err := load.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	b.ReportAllocs()
	item := load.Item{Op: load.Get, Kind: trace.Blob, URI: "v2/bench/blobs/x", Path: path, Digest: d, Size: 4 << 10}
	if _, err := e.Run(context.Background(), &many{item: item, left: b.N}, func(load.Result) {}); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkOpen sends at a rate, and reports how late requests were sent. Server and
// generator share the machine.
func BenchmarkOpen(b *testing.B) {
	for _, rate := range []int{1000, 5000, 20_000} {
		b.Run(fmt.Sprint(rate), func(b *testing.B) {
			s, path, d := blobServer(b, 4<<10)
			item := load.Item{Op: load.Get, Kind: trace.Blob, URI: "v2/bench/blobs/x", Path: path, Digest: d, Size: 4 << 10}
			for b.Loop() {
				e, err := load.New(to(s))
				if err != nil {
					b.Fatal(err)
				}
				var latencies []time.Duration
				stats, err := e.Run(context.Background(), &many{item: item, left: 2 * rate, gap: time.Second / time.Duration(rate)}, func(r load.Result) {
					latencies = append(latencies, r.Latency)
				})
				if err != nil {
					b.Fatal(err)
				}
				e.Close()
				b.ReportMetric(float64(stats.LagP99.Microseconds()), "lag-p99-us")
				b.ReportMetric(float64(percentile(latencies, 50).Microseconds()), "p50-us")
				b.ReportMetric(float64(percentile(latencies, 99).Microseconds()), "p99-us")
				b.ReportMetric(float64(stats.MaxInFlight), "inflight")
				b.Logf("%+v", stats)
			}
		})
	}
}
