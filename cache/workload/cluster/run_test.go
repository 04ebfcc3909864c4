package cluster_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/cluster"
	"github.com/reprise-containers/reprise/cache/workload/load"
)

// few makes a client hold fewer items than a test has.
func few(c *cluster.ClientConfig) { c.Hold(32) }

// TestAllItemsAreSentOnce runs many more items than clients hold, through engines.
func TestAllItemsAreSentOnce(t *testing.T) {
	for name, closed := range map[string]bool{"open": false, "closed": true} {
		for route, byClient := range map[string]bool{"turn": false, "client": true} {
			t.Run(name+" "+route, func(t *testing.T) {
				leakless(t)
				r := newRegistry(t)
				job := r.job()
				job.Load.Closed, job.Load.Threads, job.Load.MaxInFlight = closed, 8, 32
				m := master(t, job, func(c *cluster.MasterConfig) { c.ByClient = byClient },
					client(t, few), client(t, few), client(t, few))
				const n = 1500
				src, got := &items{n: n, every: 500 * time.Microsecond, clients: 50}, &results{}
				stats, err := m.Run(t.Context(), src, got.add)
				if err != nil {
					t.Fatal(err)
				}
				if c := got.causes(); c[load.CauseNone] != n || len(c) != 1 || got.twice != 0 {
					t.Errorf("results %v, %d of them twice", c, got.twice)
				}
				if stats.Sent != n || stats.Ended != n || stats.InFlight != 0 {
					t.Errorf("stats %+v", stats)
				}
				var sum uint64
				for _, c := range m.Clients() {
					if c.State != cluster.Done || c.Items != c.Ended || c.Lost != 0 || c.Items == 0 {
						t.Errorf("client %+v", c)
					}
					if !byClient && !closed && c.Items != n/3 {
						t.Errorf("client %s had %d of %d items", c.Client, c.Items, n)
					}
					sum += c.Items
				}
				if sum != n {
					t.Errorf("%d items", sum)
				}
				for i := range uint64(n) {
					x := got.all[i]
					it, _ := (&items{n: n, next: int(i), every: src.every}).Next(t.Context())
					if x.URI != it.URI || x.Op != it.Op || x.Kind != it.Kind || x.Bytes != it.Size {
						t.Fatalf("result %+v of item %+v", x, it)
					}
					if first := got.all[0]; !closed && x.Intended.Sub(first.Intended) != it.Due {
						t.Fatalf("result %d was due at %v, the first at %v", i, x.Intended, first.Intended)
					}
				}
			})
		}
	}
}

// recorder is a Runner that notes what it was told to do, and sends nothing.
type recorder struct {
	cfg load.Config
	mu  *sync.Mutex
	to  map[string]map[*recorder]int // items by client of the trace
	all *[]*recorder
}

func (r *recorder) Run(ctx context.Context, src load.Source, sink func(load.Result)) (load.Stats, error) {
	r.mu.Lock()
	*r.all = append(*r.all, r)
	r.mu.Unlock()
	for {
		it, err := src.Next(ctx)
		if err != nil {
			return load.Stats{}, nil
		}
		r.mu.Lock()
		if r.to[it.Client] == nil {
			r.to[it.Client] = map[*recorder]int{}
		}
		r.to[it.Client][r]++
		r.mu.Unlock()
		sink(load.Result{Seq: it.Seq, Sent: r.cfg.Start.Add(it.Due), Intended: r.cfg.Start.Add(it.Due)})
	}
}

func recorders() (more func(*cluster.ClientConfig), to map[string]map[*recorder]int, all *[]*recorder) {
	to, all = map[string]map[*recorder]int{}, &[]*recorder{}
	var mu sync.Mutex
	return func(c *cluster.ClientConfig) {
		c.New = func(cfg load.Config) (load.Runner, error) {
			return &recorder{cfg: cfg, mu: &mu, to: to, all: all}, nil
		}
	}, to, all
}

// TestOneInstant starts clients whose clocks are hours apart.
func TestOneInstant(t *testing.T) {
	ahead := []time.Duration{3 * time.Hour, -7 * time.Minute, 0, 1234 * time.Millisecond}
	more, _, all := recorders()
	var clients []string
	for _, a := range ahead {
		clients = append(clients, client(t, func(c *cluster.ClientConfig) {
			more(c)
			c.Ahead(a)
		}))
	}
	m := master(t, cluster.Job{}, nil, clients...)
	got := &results{}
	if _, err := m.Run(t.Context(), &items{n: 100, every: time.Millisecond}, got.add); err != nil {
		t.Fatal(err)
	}
	seen := map[time.Duration]bool{}
	var worst time.Duration
	for _, c := range m.Clients() {
		for _, a := range ahead {
			if (c.Offset - a).Abs() <= c.RTT/2 {
				seen[a] = true
			}
		}
		worst = max(worst, c.RTT)
	}
	if len(seen) != len(ahead) {
		t.Errorf("offsets %+v, and not %v", m.Clients(), ahead)
	}
	if len(*all) != len(ahead) {
		t.Fatalf("%d clients began", len(*all))
	}
	// Each knows the start as well as half its quickest answer took.
	for _, r := range *all {
		if d := r.cfg.Start.Sub((*all)[0].cfg.Start).Abs(); d > worst {
			t.Errorf("a client began %v from another, and answers took %v", d, worst)
		}
	}
	for seq, x := range got.all {
		if d := x.Sent.Sub(got.all[0].Sent); d != time.Duration(seq)*time.Millisecond {
			t.Fatalf("item %d was sent %v after the first", seq, d)
		}
	}
}

func TestClientsOfTheTraceStayTogether(t *testing.T) {
	more, to, all := recorders()
	m := master(t, cluster.Job{}, func(c *cluster.MasterConfig) { c.ByClient = true },
		client(t, more), client(t, more), client(t, more), client(t, more))
	if _, err := m.Run(t.Context(), &items{n: 4000, clients: 400}, (&results{}).add); err != nil {
		t.Fatal(err)
	}
	share := map[*recorder]int{}
	for c, at := range to {
		if len(at) != 1 {
			t.Errorf("%s is at %d clients", c, len(at))
		}
		for r := range at {
			share[r]++
		}
	}
	if len(to) != 400 || len(*all) != 4 {
		t.Fatalf("%d clients of the trace, %d here", len(to), len(*all))
	}
	for _, r := range *all {
		if share[r] < 50 || share[r] > 150 { // 100, 8.7 standard deviation
			t.Errorf("a client has %d of 400", share[r])
		}
	}
}

func TestSourceFails(t *testing.T) {
	leakless(t)
	r, broken := newRegistry(t), errors.New("the file is broken")
	m, got := master(t, r.job(), nil, client(t, nil), client(t, nil)), &results{}
	_, err := m.Run(t.Context(), &items{n: 100, fail: broken}, got.add)
	if !errors.Is(err, broken) {
		t.Error(err)
	}
	if c := got.causes(); c[load.CauseNone] != 100 {
		t.Error(c)
	}
}

// TestAbort ends a run while all requests are held back.
func TestAbort(t *testing.T) {
	leakless(t)
	r := newRegistry(t)
	r.holdBack()
	addr := client(t, nil)
	for range 2 { // the client is free for another
		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("that is enough")
		m, got := master(t, r.job(), nil, addr), &results{}
		var waiting sync.WaitGroup
		waiting.Go(func() {
			r.await(t, func(held, _ int) bool { return held > 10 })
			cancel(enough)
		})
		stats, err := m.Run(ctx, &items{n: 200, every: time.Millisecond}, got.add)
		waiting.Wait()
		r.await(t, func(held, _ int) bool { return held == 0 })
		if !errors.Is(err, enough) {
			t.Error(err)
		}
		c := got.causes()
		if len(c) != 1 || c[load.CauseAborted] < 10 || stats.Sent != uint64(c[load.CauseAborted]) {
			t.Errorf("results %v, sent %d", c, stats.Sent)
		}
	}
}

// TestDuration lets the time of the run be up at the clients.
func TestDuration(t *testing.T) {
	for _, closed := range []bool{false, true} {
		leakless(t)
		r := newRegistry(t)
		job := r.job()
		job.Load.Duration, job.Load.Closed = 500*time.Millisecond, closed
		m, got := master(t, job, nil, client(t, nil), client(t, nil)), &results{}
		stats, err := m.Run(t.Context(), &items{n: 1 << 30, every: time.Millisecond}, got.add)
		if err != nil {
			t.Fatal(err)
		}
		if c := got.causes(); c[load.CauseNone] != int(stats.Ended) || len(c) != 1 {
			t.Errorf("%v, ended %d", c, stats.Ended)
		}
		if !closed && len(got.all) != 500 {
			t.Errorf("%d items in half a second of one a millisecond", len(got.all))
		}
	}
}
