package replayer_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cachetest/testbed"
	"github.com/reprise-containers/reprise/cache/workload/content"
)

// ready is a desk with a registry that was warmed up for a trace, trace.json.
type ready struct {
	*desk
	registry *server
	requests int
	config   values
}

// mostPulls is how many of pulls the common registry was warmed up for.
const mostPulls = 400

// warmed is a desk with the common registry, for n pulls, one every so often.
func warmed(t *testing.T, n int, every time.Duration) *ready {
	t.Helper()
	registry, err := common()
	needed(t, err)
	w := newReady(t, registry, n, every)
	known, err := commonMap()
	if err != nil {
		t.Fatal(err)
	}
	w.write("interm.json", known)
	return w
}

// commonMap is the interim map of the common registry.
var commonMap = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(programDir, "warmup")
	registry, err := common()
	if err != nil {
		return "", err
	}
	path, err := program()
	if err != nil {
		return "", err
	}
	trace, err := json.Marshal(pulls(mostPulls, time.Millisecond).records)
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	config := fmt.Sprintf("trace: {traces: [trace.json]}\nregistry: [%s]\nwarmup: {output: interm.json, threads: 4}\n", registry.address)
	for name, text := range map[string]string{"trace.json": string(trace), "config.yaml": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	cmd := exec.Command(path, "warmup", "-i", "config.yaml")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("warming the common registry up: %w\n%s", err, out)
	}
	known, err := os.ReadFile(filepath.Join(dir, "interm.json"))
	return string(known), err
})

// warmedAlone is warmed with a registry of its own, that may be killed.
func warmedAlone(t *testing.T, n int, every time.Duration) *ready {
	t.Helper()
	w := newReady(t, startRegistry(t, ""), n, every)
	w.run(0, "warmup", "-i", "config.yaml")
	return w
}

// cluster is that of tests which are not about who is silent, on a machine that may
// be slow.
var cluster = values{"heartbeat": "10s", "start_in": "2s"}

func newReady(t *testing.T, registry *server, n int, every time.Duration) *ready {
	t.Helper()
	w := &ready{desk: newDesk(t), registry: registry, requests: n}
	w.write("trace.json", array(t, pulls(n, every).records))
	w.config = values{
		"trace": values{"traces": []string{"trace.json"}, "output": "results.json"}, "registry": []string{w.registry.address},
		"warmup": values{"output": "interm.json", "threads": 4}, "cluster": cluster,
	}
	w.configure(w.config)
	return w
}

// with sets a part of the configuration, and writes it.
func (w *ready) with(key string, v values) *ready {
	w.config[key] = v
	w.configure(w.config)
	return w
}

// sent waits until the results file of a run has more than n results that went well.
// It can be read at any time.
func (w *ready) sent(p *process, n int) {
	w.t.Helper()
	until(p, fmt.Sprintf("result %d", n), func() bool {
		_, well := failures(w.sofar())
		return well > n
	})
}

// sofar returns what is in the results file of a run that may be under way.
func (w *ready) sofar() []result {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, "results.json"))
	if err != nil || len(text) == 0 { // it is just being made
		return nil
	}
	rs, err := parseResults(text)
	if err != nil {
		return nil // just being written; what it is at the end is looked at by results
	}
	return rs
}

// ended checks what a run that ended badly says: the report and the file agree.
func (w *ready) ended(p *process) (failed, well int) {
	w.t.Helper()
	if status := p.wait(); status != 1 {
		w.t.Errorf("%s: exit status %d, want 1", p.name, status)
	}
	good, bad, _ := statistics(w.t, p.out.String())
	failed, well = failures(w.results("results.json"))
	if good != well || bad != failed {
		w.t.Errorf("the summary has %d that went well and %d that failed, the results file %d and %d", good, bad, well, failed)
	}
	return failed, well
}

// nextMaster runs a whole job by clients, which have to be there still. They may not
// have noticed yet that the last master is gone.
func (w *ready) nextMaster(clients ...string) {
	w.t.Helper()
	w.with("client_info", values{"client_list": clients, "threads": 4, "wait": false}).with("run", values{})
	for end := time.Now().Add(patience); ; {
		p := w.start("run", "-i", "config.yaml")
		status := p.wait()
		if status == 1 && strings.Contains(p.errs.String(), "busy") && time.Now().Before(end) {
			continue
		}
		if well, failed, _ := statistics(w.t, p.out.String()); status != 0 || well != w.requests || failed != 0 {
			w.t.Errorf("the next master: status %d, %d went well, %d failed, want 0, %d, 0", status, well, failed, w.requests)
		}
		return
	}
}

// TestKilledClient kills one of two clients in mid-run. What is done then is as the
// configuration says; the run ends, its error names the client, and the other one
// serves the next master.
func TestKilledClient(t *testing.T) {
	for _, lost := range []string{"proceed", "takeover", "stop"} {
		t.Run(lost, func(t *testing.T) {
			t.Parallel()
			w := warmed(t, 400, 5*time.Millisecond)
			victim, a := w.client()
			_, b := w.client()
			w.with("client_info", values{"client_list": []string{a, b}})
			w.with("run", values{"loop": 0}) // it cannot end before the kill
			w.with("cluster", values{"heartbeat": "10s", "start_in": "2s", "lost": lost})
			p := w.start("run", "-i", "config.yaml")
			w.sent(p, 10)
			victim.signal(syscall.SIGKILL)
			victim.wait()
			if lost != "stop" {
				until(p, "word of the loss", func() bool { return strings.Contains(p.errs.String(), "client "+a+" is lost") })
				before := w.sofar()
				_, well := failures(before)
				w.sent(p, well+100) // by the other one
				p.signal(syscall.SIGINT)
			}
			failed, _ := w.ended(p)
			if lost == "proceed" && failed == 0 {
				t.Error("no request was lost")
			}
			says(t, &p.errs, a)
			if strings.Contains(p.errs.String(), b) {
				t.Errorf("the client that was not killed is named")
			}
			if lost == "stop" {
				w.with("cluster", cluster).nextMaster(b)
			}
		})
	}
}

// TestKilledClientOfFiniteRun kills a client of a run that then ends by itself, when
// the other one has sent its share.
func TestKilledClientOfFiniteRun(t *testing.T) {
	t.Parallel()
	w := warmed(t, 240, 5*time.Millisecond)
	last := pulls(w.requests, 5*time.Millisecond)
	for i := range 20 { // far behind, so that the kill is before them
		last.add(12*time.Second, i, "GET", "v2", 200, 2)
	}
	w.write("trace.json", array(t, last.records))
	victim, a := w.client()
	_, b := w.client()
	w.with("client_info", values{"client_list": []string{a, b}})
	p := w.start("run", "-i", "config.yaml")
	w.sent(p, 10)
	victim.signal(syscall.SIGKILL)
	failed, well := w.ended(p)
	if failed+well != len(last.records) || failed < 5 {
		t.Errorf("%d failed, %d went well, of %d", failed, well, len(last.records))
	}
	says(t, &p.errs, a)
	says(t, &p.out, "A client was lost: client "+a)
}

// TestStoppedClient stops a client, which is then silent but not gone.
func TestStoppedClient(t *testing.T) {
	t.Parallel()
	w := warmed(t, 400, 5*time.Millisecond)
	victim, a := w.client()
	_, b := w.client()
	w.with("client_info", values{"client_list": []string{a, b}}).with("run", values{"loop": 0})
	w.with("cluster", values{"heartbeat": "2s", "start_in": "2s", "lost": "stop"})
	p := w.start("run", "-i", "config.yaml")
	w.sent(p, 10)
	victim.signal(syscall.SIGSTOP)
	w.ended(p)
	says(t, &p.errs, a)
	victim.signal(syscall.SIGCONT)
	w.with("cluster", cluster).nextMaster(a, b)
}

// TestKilledMaster kills the master. What it had is left in its results file, and the
// clients serve the next one.
func TestKilledMaster(t *testing.T) {
	t.Parallel()
	w := warmed(t, 400, 5*time.Millisecond)
	_, a := w.client()
	_, b := w.client()
	w.with("client_info", values{"client_list": []string{a, b}}).with("run", values{"loop": 0})
	p := w.start("run", "-i", "config.yaml")
	w.sent(p, 10)
	p.signal(syscall.SIGKILL)
	if status := p.wait(); status != -1 {
		t.Errorf("exit status %d of a process that was killed", status)
	}
	if _, well := failures(w.results("results.json")); well <= 10 {
		t.Errorf("%d results are left", well)
	}
	w.nextMaster(a, b)
}

// TestInterrupted sends the master SIGINT, with clients and without, in both loops.
// Its metrics can be read before.
func TestInterrupted(t *testing.T) {
	for _, wait := range []bool{true, false} {
		for _, clients := range []int{0, 2} {
			t.Run(fmt.Sprintf("wait %v, %d clients", wait, clients), func(t *testing.T) {
				t.Parallel()
				w := warmed(t, 400, 5*time.Millisecond)
				var list []string
				for range clients {
					_, a := w.client()
					list = append(list, a)
				}
				port, err := testbed.FreePort()
				if err != nil {
					t.Fatal(err)
				}
				w.with("client_info", values{"client_list": append([]string{}, list...), "wait": wait, "threads": 2})
				w.with("run", values{"loop": 0}).with("report", values{"json": "run.json", "html": "run.html", "metrics": "127.0.0.1:" + port})
				p := w.start("run", "-i", "config.yaml")
				w.sent(p, 10)
				if text := metrics(t, "http://127.0.0.1:"+port+"/metrics"); !strings.Contains(text, "reprise") && !strings.Contains(text, "replay") {
					t.Errorf("metrics are\n%.2000s", text)
				}
				p.signal(syscall.SIGINT)
				if _, well := w.ended(p); well <= 10 {
					t.Errorf("%d went well", well)
				}
				says(t, &p.out, "The run ended early")
				for _, name := range []string{"run.json", "run.html"} {
					if len(w.read(name)) == 0 {
						t.Errorf("%s is empty", name)
					}
				}
				if clients > 0 && wait {
					w.with("report", values{}).nextMaster(list...)
				}
			})
		}
	}
}

func metrics(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, r.Status, err)
	}
	return string(text)
}

// TestKilledRegistry kills the registry. The rest of the trace fails, each request
// with its reason, and the run ends by itself.
func TestKilledRegistry(t *testing.T) {
	for _, clients := range []int{0, 1} {
		t.Run(fmt.Sprintf("%d clients", clients), func(t *testing.T) {
			t.Parallel()
			const rounds = 40
			w := warmedAlone(t, 400, time.Millisecond)
			list := []string{}
			for range clients {
				_, a := w.client()
				list = append(list, a)
			}
			w.with("client_info", values{"client_list": list, "wait": false, "threads": 2})
			w.with("run", values{"loop": rounds})
			p := w.start("run", "-i", "config.yaml")
			w.sent(p, 10)
			w.registry.kill()
			failed, well := w.ended(p)
			if failed == 0 || well+failed != rounds*w.requests {
				t.Errorf("%d failed, %d went well, of %d", failed, well, rounds*w.requests)
			}
			says(t, &p.errs, fmt.Sprintf("%d of %d requests failed", failed, rounds*w.requests))
			says(t, &p.out, "Failures", "connect", w.registry.address)
			if clients > 0 { // without a registry the client lives on
				again := w.with("run", values{}).run(1, "run", "-i", "config.yaml")
				statistics(t, again.out.String())
			}
		})
	}
}

// TestInterruptedWarmup sends SIGINT to a warmup: what was pushed is in the map, and
// the next one goes on from there.
func TestInterruptedWarmup(t *testing.T) {
	t.Parallel()
	registry := startRegistry(t, "")
	d := newDesk(t)
	var big recording
	const blobs = 400
	for i := range blobs {
		big.add(time.Duration(i)*time.Millisecond, i, "GET", blobURI("large", i), 200, 4096)
	}
	d.write("trace.json", array(t, big.records))
	configure := func(threads int) {
		d.configure(values{
			"trace": values{"traces": []string{"trace.json"}}, "registry": []string{registry.address},
			"warmup": values{"output": "interm.json", "threads": threads},
		})
	}
	configure(1)
	fifth := blobURI("large", 5)
	known, err := content.New(0, false).Digest(t.Context(), fifth, 4096)
	if err != nil {
		t.Fatal(err)
	}
	p := d.start("warmup", "-i", "config.yaml")
	until(p, "a blob in the registry", func() bool {
		_, status := fetch(t, registry.url()+"/"+registryPath(fifth, known.String()))
		return status == http.StatusOK
	})
	p.signal(syscall.SIGINT)
	if status := p.wait(); status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	some := d.interim("interm.json")
	if len(some) == 0 || len(some) == blobs {
		t.Errorf("%d of %d are in the map", len(some), blobs)
	}
	for uri, digest := range some {
		if digest == "bad" {
			t.Errorf("%s is bad, it was only not pushed yet", uri)
		}
	}
	says(t, &p.errs, "interrupt")
	configure(8)
	p = d.run(0, "warmup", "-i", "config.yaml")
	says(t, &p.out, fmt.Sprintf("%d there already", len(some)))
	if all := d.interim("interm.json"); len(all) != blobs {
		t.Errorf("%d are in the map, want %d", len(all), blobs)
	}
}
