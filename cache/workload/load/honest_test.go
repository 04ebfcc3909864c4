package load_test

import (
	"context"
	"encoding/pem"
	"math"
	"net"
	"net/http"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"crypto/x509"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

func pemOf(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

// pipes is a server whose connections are in memory, for time that is the test's own.
type pipes struct {
	conns  chan net.Conn
	done   chan struct{}
	server *http.Server
}

func newPipes(h http.Handler) *pipes {
	p := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	p.server = &http.Server{Handler: h}
	go p.server.Serve(p) //nolint:errcheck // that it is closed
	return p
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }
func (p *pipes) Close() error   { return nil }
func (p *pipes) close()         { close(p.done); p.server.Close() }

// stalling is a server that answers at once, but for the first second of every ten, in
// which it answers nothing.
type stalling struct {
	begun         time.Time
	stall, period time.Duration
}

func (s stalling) ServeHTTP(_ http.ResponseWriter, _ *http.Request) {
	if in := time.Since(s.begun) % s.period; in < s.stall {
		time.Sleep(s.stall - in)
	}
}

// tail returns the latency that a share of the requests has or more, if they arrive
// evenly at a server that stalls: of those in a stall, which are stall/period of all,
// latencies are evenly spread from 0 to its length.
func (s stalling) tail(share float64) time.Duration {
	return time.Duration(float64(s.stall) * (1 - share*float64(s.period)/float64(s.stall)))
}

// percentile is of the latencies, exact.
func percentile(all []time.Duration, p float64) time.Duration {
	slices.Sort(all)
	return all[min(len(all)-1, int(math.Ceil(p/100*float64(len(all))))-1)]
}

// latencies sends requests at a rate and returns how long they took.
func latencies(t *testing.T, cfg load.Config, rate, length int) []time.Duration {
	t.Helper()
	e, err := load.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	all := make([]load.Item, rate*length)
	for i := range all {
		all[i] = load.Item{Op: load.Get, Kind: trace.Ping, Path: "/v2/", Due: time.Duration(i) * time.Second / time.Duration(rate)}
	}
	var out []time.Duration
	_, err = e.Run(t.Context(), of(all...), func(r load.Result) {
		if r.Cause != load.CauseNone {
			t.Errorf("%+v", r)
		}
		out = append(out, r.Latency)
	})
	if err != nil || len(out) != len(all) {
		t.Fatalf("%d of %d, %v", len(out), len(all), err)
	}
	return out
}

// honest compares percentiles with those of arrivals that nothing delays, and shows
// that a closed loop at the same times hides them.
func honest(t *testing.T, cfg load.Config, s stalling, rate, length int) {
	open := latencies(t, cfg, rate, length)
	for _, p := range []float64{99, 99.9} {
		got, want := percentile(open, p), s.tail(1-p/100)
		t.Logf("open loop: p%v is %v, of open arrivals it is %v", p, got, want)
		if math.Abs(float64(got)/float64(want)-1) > 0.05 {
			t.Errorf("p%v is %v, not within 5 %% of %v", p, got, want)
		}
	}
}

// hidden runs the same requests in a closed loop.
func hidden(t *testing.T, cfg load.Config, s stalling, rate, length int) {
	cfg.Closed, cfg.Paced, cfg.Threads = true, true, 1
	closed := latencies(t, cfg, rate, length)
	for _, p := range []float64{99, 99.9} {
		got, want := percentile(closed, p), s.tail(1-p/100)
		t.Logf("closed loop: p%v is %v, of open arrivals it is %v", p, got, want)
		if got > want/10 {
			t.Errorf("the closed loop shows p%v as %v of %v: the test does not show what it should", p, got, want)
		}
	}
}

// TestHonestLatency is in time that is the test's own: a server that stalls for a
// second every ten, for 100 seconds.
func TestHonestLatency(t *testing.T) {
	for name, check := range map[string]func(*testing.T, load.Config, stalling, int, int){"open": honest, "closed": hidden} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := stalling{time.Now(), time.Second, 10 * time.Second}
				p := newPipes(s)
				defer p.close()
				cfg := load.WithDial(load.Config{Registries: []load.Registry{{Base: "http://registry"}}}, p.dial)
				check(t, cfg, s, 200, 100)
			})
		})
	}
}

// TestHonestLatencyOverTCP is the same in real time over loopback: two periods. What a
// busy machine adds to each answer is in what it finds, so that it needs one that has
// nothing else to do.
func TestHonestLatencyOverTCP(t *testing.T) {
	if os.Getenv("TRIAL") != "full" {
		t.Skip("takes 40 seconds of an idle machine: set TRIAL=full")
	}
	for name, check := range map[string]func(*testing.T, load.Config, stalling, int, int){"open": honest, "closed": hidden} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := stalling{time.Now(), time.Second, 10 * time.Second}
			server := &http.Server{Handler: s}
			go server.Serve(l) //nolint:errcheck // that it is closed
			defer server.Close()
			check(t, load.Config{Registries: []load.Registry{{Base: "http://" + l.Addr().String()}}}, s, 200, 20)
		})
	}
}
