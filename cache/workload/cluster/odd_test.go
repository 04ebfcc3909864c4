package cluster_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/cluster"
	"github.com/reprise-containers/reprise/cache/workload/load"
)

// TestSlowSink has a sink that takes longer than a peer may be silent: nobody is.
func TestSlowSink(t *testing.T) {
	leakless(t)
	const beat = 400 * time.Millisecond
	m := master(t, cluster.Job{}, func(c *cluster.MasterConfig) { c.Heartbeat = beat },
		client(t, func(c *cluster.ClientConfig) {
			paced(c)
			few(c)
		}))
	got := &results{on: func(n int) {
		if n == 10 {
			time.Sleep(5 * beat)
		}
	}}
	if _, err := m.Run(t.Context(), &items{n: 1000, every: 4 * time.Millisecond}, got.add); err != nil {
		t.Error(err)
	}
	if c := got.causes(); c[load.CauseNone] != 1000 {
		t.Error(c)
	}
}

// TestFiguresDuringRun asks for them all the time. It is for the race detector, and for
// what must hold at any time.
func TestFiguresDuringRun(t *testing.T) {
	r := newRegistry(t)
	m := master(t, r.job(), func(c *cluster.MasterConfig) { c.Heartbeat = time.Second },
		client(t, nil), client(t, nil))
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() {
		for ctx.Err() == nil {
			for _, c := range m.Clients() {
				if c.Items < c.Ended+c.Lost {
					t.Errorf("%+v", c)
				}
			}
			m.Stats()
			time.Sleep(time.Millisecond)
		}
	})
	var sent uint64 // by what heartbeats said
	src := &items{n: 1000, every: 4 * time.Millisecond}
	got := &results{on: func(int) { sent = max(sent, m.Stats().Sent) }}
	_, err := m.Run(t.Context(), src, got.add)
	stop()
	asking.Wait()
	if err != nil {
		t.Error(err)
	}
	if sent == 0 || sent > 1000 {
		t.Errorf("during the run %d requests were said to be sent", sent)
	}
}

// runner is a load.Runner of a function.
type runner func(context.Context, load.Source, func(load.Result)) (load.Stats, error)

func (r runner) Run(ctx context.Context, src load.Source, sink func(load.Result)) (load.Stats, error) {
	return r(ctx, src, sink)
}

// TestOddRunners has clients whose runners do what they should not. The run ends, says
// why, and each item is told of once.
func TestOddRunners(t *testing.T) {
	for want, run := range map[string]runner{
		"items open": func(ctx context.Context, src load.Source, _ func(load.Result)) (load.Stats, error) {
			src.Next(ctx)
			return load.Stats{}, nil
		},
		"out of files": func(ctx context.Context, src load.Source, sink func(load.Result)) (load.Stats, error) {
			it, _ := src.Next(ctx)
			sink(load.Result{Seq: it.Seq})
			return load.Stats{}, errors.New("out of files")
		},
		"item 77, which it does not have": func(ctx context.Context, src load.Source, sink func(load.Result)) (load.Stats, error) {
			src.Next(ctx)
			sink(load.Result{Seq: 77})
			<-ctx.Done()
			return load.Stats{}, nil
		},
		"item 0, which it does not have": func(ctx context.Context, src load.Source, sink func(load.Result)) (load.Stats, error) {
			src.Next(ctx)
			sink(load.Result{})
			sink(load.Result{})
			<-ctx.Done()
			return load.Stats{}, nil
		},
	} {
		t.Run(want, func(t *testing.T) {
			leakless(t)
			addr := client(t, func(c *cluster.ClientConfig) {
				c.New = func(load.Config) (load.Runner, error) { return run, nil }
			})
			got, src := &results{}, &items{n: 50}
			_, err := master(t, cluster.Job{}, nil, addr).Run(t.Context(), src, got.add)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, and not: %s", err, want)
			}
			c := got.causes()
			// One may be read when there is nobody left to have it.
			if c[load.CauseNone]+c[load.CauseLost] < src.given()-1 || c[load.CauseNone] > 1 || got.twice != 0 {
				t.Errorf("%v of %d, %d twice", c, src.given(), got.twice)
			}
		})
	}
}

// TestNotReadyAtTheStart has a client prepare for longer than there is time.
func TestNotReadyAtTheStart(t *testing.T) {
	leakless(t)
	release := make(chan struct{})
	slow := client(t, func(c *cluster.ClientConfig) {
		c.New = func(cfg load.Config) (load.Runner, error) {
			<-release
			return newPacer(cfg)
		}
	})
	m, got := master(t, cluster.Job{}, nil, client(t, paced), slow), &results{}
	ended := make(chan error, 1)
	go func() {
		_, err := m.Run(t.Context(), &items{n: 50}, got.add)
		ended <- err
	}()
	err := <-ended
	close(release)
	if err == nil || !strings.Contains(err.Error(), slow+": it was not ready at the start") || len(got.all) != 0 {
		t.Errorf("%v, %d results", err, len(got.all))
	}
}

// parts are the parts of uploads, which a client must have all of.
type parts struct{ items }

func (p *parts) Next(ctx context.Context) (load.Item, error) {
	it, err := p.items.Next(ctx)
	it.Op = []load.Op{load.Start, load.Append, load.Finish}[it.Seq%3]
	return it, err
}

func TestPartsStayTogether(t *testing.T) {
	more, to, all := recorders()
	m := master(t, cluster.Job{}, nil, client(t, more), client(t, more), client(t, more))
	src := &parts{items{n: 900, clients: 50}}
	if _, err := m.Run(t.Context(), src, (&results{}).add); err != nil {
		t.Fatal(err)
	}
	used := map[*recorder]bool{}
	for c, at := range to {
		if len(at) != 1 {
			t.Errorf("uploads of %s are at %d clients", c, len(at))
		}
		for r := range at {
			used[r] = true
		}
	}
	if len(*all) != 3 || len(used) != 3 {
		t.Errorf("%d of %d clients were used", len(used), len(*all))
	}
}
