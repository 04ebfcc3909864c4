package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/cluster"
	"github.com/reprise-containers/reprise/cache/workload/load"
)

// role makes the test binary a client or a master, which tests kill.
const role = "CLUSTER_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "client":
		beClient()
	case "master":
		beMaster()
	default:
		os.Exit(m.Run())
	}
}

func beClient() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	cfg := cluster.ClientConfig{Listener: l, Secret: secret, Version: "v1", New: newPacer}
	few(&cfg)
	panic(cluster.Serve(context.Background(), cfg))
}

// beMaster runs items of the job that it is told, for ever.
func beMaster() {
	var job cluster.Job
	if err := json.Unmarshal([]byte(os.Getenv("CLUSTER_TEST_JOB")), &job); err != nil {
		panic(err)
	}
	m, err := cluster.New(cluster.MasterConfig{
		Clients: []string{os.Getenv("CLUSTER_TEST_CLIENT")}, Secret: secret, Version: "v1", Job: job,
		Heartbeat: 500 * time.Millisecond,
	})
	if err != nil {
		panic(err)
	}
	_, err = m.Run(context.Background(), &items{n: 1 << 30, every: time.Millisecond}, func(load.Result) {})
	fmt.Println("ended:", err)
}

// pacer is a Runner that sends nothing, at the right time.
type pacer struct{ cfg load.Config }

func newPacer(cfg load.Config) (load.Runner, error) { return pacer{cfg}, nil }

func (p pacer) Run(ctx context.Context, src load.Source, sink func(load.Result)) (load.Stats, error) {
	var s load.Stats
	for {
		it, err := src.Next(ctx)
		if err != nil {
			return s, nil
		}
		due := p.cfg.Start.Add(it.Due)
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			return s, nil
		}
		s.Sent++
		s.Ended++
		sink(load.Result{Seq: it.Seq, Status: 200, Intended: due, Sent: time.Now()})
	}
}

// process starts this binary in a role, and returns it and its first line.
func process(t *testing.T, env ...string) (*exec.Cmd, string) {
	t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^$")
	c.Env = append(os.Environ(), env...)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	if !strings.HasSuffix(env[0], "client") {
		return c, ""
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return c, strings.TrimSpace(line)
}

// TestClientDies kills and stops a client of two in the middle of a run.
func TestClientDies(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGSTOP} {
		for _, loss := range []cluster.Loss{cluster.Proceed, cluster.Takeover, cluster.Stop} {
			t.Run(fmt.Sprint(name, " ", loss), func(t *testing.T) { clientDies(t, sig, loss) })
		}
	}
}

func clientDies(t *testing.T, sig syscall.Signal, loss cluster.Loss) {
	leakless(t)
	_, first := process(t, role+"=client")
	victim, second := process(t, role+"=client")
	m := master(t, cluster.Job{}, func(c *cluster.MasterConfig) {
		c.Loss, c.Heartbeat = loss, 500*time.Millisecond
	}, first, second)
	const n = 3000
	got := &results{on: func(n int) {
		if n == 200 {
			victim.Process.Signal(sig)
		}
	}}
	src := &items{n: n, every: 2 * time.Millisecond}
	_, err := m.Run(t.Context(), src, got.add)
	var lost *cluster.ClientError
	if !errors.As(err, &lost) || lost.Client != second {
		t.Fatalf("error %v", err)
	}
	want := cluster.ErrGone
	if sig == syscall.SIGSTOP {
		want = cluster.ErrSilent
	}
	if !errors.Is(err, want) {
		t.Errorf("error %v, and not: %v", err, want)
	}
	c := got.causes()
	alive, dead := m.Clients()[0], m.Clients()[1]
	t.Log(c, err)
	if dead.State != cluster.Lost || dead.Err == "" || int(dead.Lost) != c[load.CauseLost] || dead.Lost == 0 {
		t.Errorf("the lost client is %+v, results %v", dead, c)
	}
	if dead.Items != dead.Ended+dead.Lost || got.twice != 0 {
		t.Errorf("%d items, %d ended and %d lost; %d told twice", dead.Items, dead.Ended, dead.Lost, got.twice)
	}
	if loss == cluster.Stop {
		if len(got.all) == n || alive.State != cluster.Done {
			t.Errorf("all was told of a run that was stopped, the other is %+v", alive)
		}
		return
	}
	if c[load.CauseNone]+c[load.CauseLost] != n || alive.State != cluster.Done || alive.Ended != alive.Items {
		t.Errorf("results %v, the other is %+v", c, alive)
	}
	if loss == cluster.Proceed && (alive.Items != n/2 || dead.Items != n/2) {
		t.Errorf("%d and %d items", alive.Items, dead.Items)
	}
	if loss == cluster.Takeover && alive.Items <= n/2 {
		t.Errorf("the other took over nothing: %d items", alive.Items)
	}
}

// TestAllClientsDie ends a run that has nobody left, however long it would be.
func TestAllClientsDie(t *testing.T) {
	for _, loss := range []cluster.Loss{cluster.Proceed, cluster.Takeover, cluster.Stop} {
		for _, closed := range []bool{false, true} {
			leakless(t)
			a, first := process(t, role+"=client")
			b, second := process(t, role+"=client")
			job := cluster.Job{Load: load.Config{Closed: closed}}
			m := master(t, job, func(c *cluster.MasterConfig) { c.Loss = loss }, first, second)
			got := &results{on: func(n int) {
				if n == 50 {
					a.Process.Kill()
					b.Process.Kill()
				}
			}}
			_, err := m.Run(t.Context(), &items{n: 1 << 30, every: time.Millisecond}, got.add)
			if !errors.Is(err, cluster.ErrGone) {
				t.Errorf("%s, closed %v: %v", loss, closed, err)
			}
			for _, c := range m.Clients() {
				if c.State != cluster.Lost && loss != cluster.Stop {
					t.Errorf("%s, closed %v: %+v", loss, closed, c)
				}
			}
		}
	}
}

// TestMasterDies kills and stops a master while its requests are under way. The
// client aborts them, and does the job of another.
func TestMasterDies(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			leakless(t)
			r := newRegistry(t)
			r.holdBack()
			addr := client(t, nil)
			job, err := json.Marshal(r.job())
			if err != nil {
				t.Fatal(err)
			}
			dead, _ := process(t, role+"=master", "CLUSTER_TEST_CLIENT="+addr, "CLUSTER_TEST_JOB="+string(job))
			r.await(t, func(held, _ int) bool { return held > 10 })
			second := master(t, r.job(), nil, addr)
			if _, err := second.Run(t.Context(), &items{n: 1}, func(load.Result) {}); !errors.Is(err, cluster.ErrBusy) {
				t.Errorf("a second master was told: %v", err)
			}
			dead.Process.Signal(sig)
			r.await(t, func(held, aborted int) bool { return held == 0 && aborted > 10 })
			r.release()
			for range 100 {
				m, got := master(t, r.job(), nil, addr), &results{}
				_, err := m.Run(t.Context(), &items{n: 100}, got.add)
				if errors.Is(err, cluster.ErrBusy) {
					time.Sleep(50 * time.Millisecond)
					continue
				}
				if err != nil || got.causes()[load.CauseNone] != 100 {
					t.Errorf("the next run: %v, %v", got.causes(), err)
				}
				return
			}
			t.Error("the client stays busy")
		})
	}
}

// TestClientEnds has a client end as the user wants while it has a job.
func TestClientEnds(t *testing.T) {
	leakless(t)
	r := newRegistry(t)
	r.holdBack()
	addr, end := clientUntil(t, nil)
	m, got := master(t, r.job(), nil, addr), &results{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.await(t, func(held, _ int) bool { return held > 10 })
		end()
	}()
	_, err := m.Run(t.Context(), &items{n: 200, every: time.Millisecond}, got.add)
	<-ended
	if err == nil || !strings.Contains(err.Error(), "was told to end") {
		t.Error(err)
	}
	if c := got.causes(); c[load.CauseAborted] < 10 || c[load.CauseNone] != 0 {
		t.Error(c)
	}
}
