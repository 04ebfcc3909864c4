package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/integration/registrycache/instance"
	"github.com/reprise-containers/reprise/integration/registrycache/origin"
)

const (
	replayConnections = 16
	replaySize        = 4 << 10
	replayRequests    = 60_000 // a round
	replayRounds      = 11
	wrkFor            = 2 * time.Second
)

// asked is a round of one client of a closed loop.
type asked struct {
	rate float64       // requests a second
	cpu  time.Duration // of the client, a request
	both time.Duration // of client and server, a request
}

// player is trace-replayer, and a bare handler that it replays against.
type player struct {
	dir, program string
	server       peer
}

// replays measures a closed loop of trace-replayer on small blobs, with digests
// compared and all reports made, beside a loop of a bare net/http client and wrk, all
// over as many connections to the same bare handler, in turns.
func (b bench) replays(ctx context.Context) error {
	p, err := b.newPlayer(ctx)
	if err != nil {
		return err
	}
	defer os.RemoveAll(p.dir)
	if p.server, err = b.bare(ctx, p.dir, replaySize); err != nil {
		return err
	}
	defer p.server.stop()
	blob := origin.Random(1, replaySize) // what the bare handler gives to everybody
	if err := writeReads(filepath.Join(p.dir, "trace.jsonl"), blobPath(blob)[1:], replayRequests); err != nil {
		return err
	}
	clients := []struct {
		name string
		ask  func(context.Context) (asked, int, error)
	}{{"trace-replayer", p.replay}, {"bare net/http client", p.bare}, {"wrk", p.wrk}}
	results := make([][]asked, len(clients))
	for round := range replayRounds {
		for k := range clients {
			i := (k + round) % len(clients) // none is always the first
			r, err := p.measured(ctx, clients[i].ask)
			if err != nil {
				return fmt.Errorf("%s: %w", clients[i].name, err)
			}
			results[i] = append(results[i], r)
		}
	}
	names := make([]string, len(clients))
	for i, c := range clients {
		names[i] = c.name
	}
	printReplays(names, results)
	return nil
}

// measured adds what the server took, of whose requests the client tells the rate and
// its own share.
func (p player) measured(ctx context.Context, ask func(context.Context) (asked, int, error)) (asked, error) {
	before, err := p.server.cpu()
	if err != nil {
		return asked{}, err
	}
	r, n, err := ask(ctx)
	if err != nil {
		return asked{}, err
	}
	after, err := p.server.cpu()
	r.both = r.cpu + (after-before)/time.Duration(n)
	return r, err
}

// printReplays prints a line a client. Ratios are of one round; what is shown is their
// median. Rates say little on a machine that others use too: what of them is left
// there is by processor time, of client and server, which is what bounds the rate
// where both have the same processors.
func printReplays(names []string, results [][]asked) {
	fmt.Printf("\nA closed loop on a blob of %d bytes, %d connections, medians of %d rounds\n%-24s %12s %12s %12s %12s %12s\n",
		replaySize, replayConnections, replayRounds, "", "requests/s", "CPU us", "with server", "ours/its", "its CPU/ours")
	middle := func(i int, f func(round int, r asked) float64) float64 {
		var all []float64
		for round, r := range results[i] {
			all = append(all, f(round, r))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	for i, name := range names {
		fmt.Printf("%-24s %12.0f %12.1f %12.1f %12.2f %12.2f\n", name,
			middle(i, func(_ int, r asked) float64 { return r.rate }),
			middle(i, func(_ int, r asked) float64 { return float64(r.cpu) / 1e3 }),
			middle(i, func(_ int, r asked) float64 { return float64(r.both) / 1e3 }),
			middle(i, func(round int, r asked) float64 { return results[0][round].rate / r.rate }),
			middle(i, func(round int, r asked) float64 { return float64(r.both) / float64(results[0][round].both) }))
	}
}

// newPlayer builds the program into a folder of its own, which the caller removes.
func (b bench) newPlayer(ctx context.Context) (player, error) {
	dir, err := os.MkdirTemp("", "reprise-replay-")
	if err != nil {
		return player{}, err
	}
	p := player{dir: dir, program: filepath.Join(dir, "trace-replayer")}
	if err := b.build(ctx, b.tools.Module, p.program, "./cmd/trace-replayer"); err != nil {
		return player{}, errors.Join(err, os.RemoveAll(dir))
	}
	return p, nil
}

// writeReads writes a trace that reads one URI again and again.
func writeReads(path, uri string, n int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := trace.NewWriter(f)
	start := time.Date(2017, 6, 20, 0, 0, 0, 0, time.UTC)
	for i := range n {
		r := trace.Request{Method: http.MethodGet, URI: uri, Status: http.StatusOK, Size: replaySize, Time: start.Add(time.Duration(i) * time.Millisecond)}
		if err := w.Write(r.Record()); err != nil {
			return err
		}
	}
	return w.Close()
}

// run runs trace-replayer in a mode, and returns its process, which has ended.
func (p player) run(ctx context.Context, mode string, config instance.Values, stdin io.Reader) (*exec.Cmd, error) {
	text, err := json.Marshal(config) // what is JSON is YAML
	if err != nil {
		return nil, err
	}
	file := filepath.Join(p.dir, mode+".yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, p.program, "-c", mode, "-i", file)
	cmd.Stdin = stdin
	var out []byte
	if out, err = cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return cmd, nil
}

func (p player) replay(ctx context.Context) (asked, int, error) {
	file := filepath.Join(p.dir, "report.json")
	cmd, err := p.run(ctx, "run", instance.Values{
		"client_info": instance.Values{"wait": false, "threads": replayConnections},
		"trace":       instance.Values{"traces": []string{filepath.Join(p.dir, "trace.jsonl")}, "output": filepath.Join(p.dir, "output.json")},
		"registry":    []string{p.server.address},
		"report":      instance.Values{"json": file},
	}, nil)
	if err != nil {
		return asked{}, 0, err
	}
	f, err := os.Open(file)
	if err != nil {
		return asked{}, 0, err
	}
	defer f.Close()
	s, err := report.Read(f)
	if err != nil {
		return asked{}, 0, err
	}
	n := s.Succeeded().Count
	if n != replayRequests {
		return asked{}, 0, fmt.Errorf("%d of %d requests succeeded", n, replayRequests)
	}
	return asked{rate: float64(n) / s.Elapsed.Seconds(), cpu: processorTime(cmd) / replayRequests}, replayRequests, nil
}

func processorTime(cmd *exec.Cmd) time.Duration {
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// bareClient is the argument with which this program is the bare client.
const bareClient = "ask-for-the-same-bytes"

// bare runs the bare client, as a process of its own like the others.
func (p player) bare(ctx context.Context) (asked, int, error) {
	self, err := os.Executable()
	if err != nil {
		return asked{}, 0, err
	}
	cmd := exec.CommandContext(ctx, self, bareClient, "http://"+p.server.address+"/v2/bench/blobs/blobs/x")
	out, err := cmd.Output()
	if err != nil {
		return asked{}, 0, err
	}
	took, err := time.ParseDuration(string(out))
	return asked{rate: replayRequests / took.Seconds(), cpu: processorTime(cmd) / replayRequests}, replayRequests, err
}

// askBare asks and throws away what comes, and returns how long it took.
func askBare(url string) (time.Duration, error) {
	client := http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: replayConnections, DisableCompression: true}}
	work := make(chan struct{}, replayRequests)
	for range replayRequests {
		work <- struct{}{}
	}
	close(work)
	errs := make([]error, replayConnections)
	began := time.Now()
	var g sync.WaitGroup
	for i := range errs {
		g.Go(func() {
			for range work {
				r, err := client.Get(url) //nolint:noctx // a benchmark
				if err == nil {
					_, err = io.Copy(io.Discard, r.Body)
					r.Body.Close()
				}
				if err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	g.Wait()
	return time.Since(began), errors.Join(errs...)
}

var (
	wrkRate   = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	wrkCount  = regexp.MustCompile(`(\d+) requests in`)
	wrkErrors = regexp.MustCompile(`Non-2xx|Socket errors`)
)

// wrk runs wrk with two threads.
func (p player) wrk(ctx context.Context) (asked, int, error) {
	cmd := exec.CommandContext(ctx, "wrk", "-t", "2", "-c", strconv.Itoa(replayConnections), "-d", wrkFor.String(), "http://"+p.server.address+"/v2/bench/blobs/blobs/x")
	out, err := cmd.CombinedOutput()
	rate, count := wrkRate.FindSubmatch(out), wrkCount.FindSubmatch(out)
	if err != nil || rate == nil || count == nil || wrkErrors.Match(out) {
		return asked{}, 0, errors.Join(err, fmt.Errorf("it said: %s", out))
	}
	n, err := strconv.Atoi(string(count[1]))
	if err != nil || n == 0 {
		return asked{}, 0, errors.Join(err, fmt.Errorf("%d requests", n))
	}
	r, err := strconv.ParseFloat(string(rate[1]), 64)
	return asked{rate: r, cpu: processorTime(cmd) / time.Duration(n)}, n, err
}
