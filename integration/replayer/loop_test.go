package replayer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/cache/workload/generate"
	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/integration/registrycache/instance"
)

// full reports whether the sizes of the issue are to be used, not those that suit a
// test that is run often.
func full() bool { return os.Getenv("TRIAL") == "full" }

// loop is a registry that a trace was pushed to, and the programs that are run
// against it.
type loop struct {
	t        *testing.T
	dir      string
	player   string // the program trace-replayer
	cached   string // the program registry-cache
	upstream string // URL of the registry
}

// beginLoop starts a registry, writes the trace and has trace-replayer push what it
// asks for.
func beginLoop(t *testing.T, trc trace.Reader) *loop {
	t.Helper()
	player, err := program()
	if err != nil {
		t.Fatal(err)
	}
	l := &loop{t: t, dir: t.TempDir(), player: player, upstream: realRegistry(t, "")}
	l.write(trc)
	said, err := l.try("warmup", values{
		"trace": values{"traces": []string{l.path("trace.jsonl")}}, "registry": []string{l.upstream},
		"warmup": values{"output": l.path("interim.json"), "threads": 8, "verify": 0.05},
	})
	if err != nil {
		t.Fatalf("trace-replayer warmup: %v", err)
	}
	t.Log(said)
	return l
}

func (l *loop) path(name string) string { return filepath.Join(l.dir, name) }

// write writes the trace, as JSON lines.
func (l *loop) write(r trace.Reader) {
	l.t.Helper()
	f, err := os.Create(l.path("trace.jsonl"))
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	w := trace.NewWriter(f)
	for {
		x, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = w.Write(x.Record())
		}
		if err != nil {
			l.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		l.t.Fatal(err)
	}
}

// try runs a mode of trace-replayer and returns what it printed.
func (l *loop) try(mode string, config values) (string, error) {
	text, err := json.Marshal(config) // what is JSON is YAML
	if err == nil {
		err = os.WriteFile(l.path(mode+".yaml"), text, 0o600)
	}
	if err != nil {
		return "", err
	}
	var out, said bytes.Buffer
	cmd := exec.CommandContext(l.t.Context(), l.player, "-c", mode, "-i", l.path(mode+".yaml"))
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w\n%s\n%.4000s", err, out.String(), said.String())
	}
	return out.String(), nil
}

// playing is a run in a closed loop.
type playing struct {
	file, registry string
	interim        bool // what is asked for is what stands for it in the interim map
	threads        int
	rounds         int  // of the file
	fails          bool // requests do, and the program says so
}

// run replays a file and returns the report.
func (l *loop) run(p playing) *report.Summary {
	l.t.Helper()
	config := values{
		"client_info": values{"wait": false, "threads": p.threads},
		"trace":       values{"traces": []string{p.file}, "output": l.path("results.json")},
		"run":         values{"loop": p.rounds},
		"registry":    []string{p.registry},
		"report":      values{"json": l.path("report.json")},
	}
	if p.interim {
		config["warmup"] = values{"output": l.path("interim.json")}
	}
	if _, err := l.try("run", config); (err != nil) != p.fails {
		l.t.Fatalf("trace-replayer run ended with %v", err)
	}
	f, err := os.Open(l.path("report.json"))
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	s, err := report.Read(f)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

// cache starts a registry cache before the registry, with an empty folder.
func (l *loop) cache(name string, over values) *instance.Instance {
	l.t.Helper()
	dir := l.path(name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		l.t.Fatal(err)
	}
	i, err := instance.New(instance.Config{
		Program: l.cached, Dir: dir, Data: l.data(name), Upstream: strings.TrimPrefix(l.upstream, "http://"), Values: over,
	})
	if err == nil {
		err = i.Start(l.t.Context())
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		i.Kill()
		if l.t.Failed() {
			l.t.Logf("the registry cache %s said:\n%.3000s", name, i.Log())
		}
	})
	return i
}

// data returns a folder for what a cache keeps: in memory where there is such a place,
// and not in full size. The cache makes each blob durable, which is most of the time
// that a small trial would take.
func (l *loop) data(name string) string {
	l.t.Helper()
	onDisk := l.path(name + "-data")
	if full() {
		return onDisk
	}
	dir, err := os.MkdirTemp("/dev/shm", "reprise-trial-")
	if err != nil {
		return onDisk
	}
	l.t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// stop ends a registry cache, which writes all of its access log then.
func (l *loop) stop(i *instance.Instance) {
	l.t.Helper()
	if err := i.Stop(); err != nil {
		l.t.Fatal(err)
	}
}

// squeezed is a trace whose objects are smaller: recorded ones have 14 MB on average,
// of which thousands are more than a test should write.
type squeezed struct {
	trace.Reader
	by, most int64
}

func (s squeezed) Next() (trace.Request, error) {
	x, err := s.Reader.Next()
	if x.Target().Kind == trace.Blob && x.Size > 0 {
		x.Size = min(max(64, x.Size/s.by), s.most)
	}
	return x, err
}

// recordedLoop is how much a trial of the loop does.
type recordedLoop struct {
	requests int64
	by       int64 // of what sizes are divided by
	disk     int64 // allowed to the cache
	// others are policies that are set too, beside the recommended one.
	others []string
}

// hitsOf returns the share of hits of the blobs and manifests of a report, and how
// many of them there were. It is what the cache said in Cache-Status.
func hitsOf(s *report.Summary) (ratio float64, asked int64) {
	var hits int64
	for _, g := range s.Groups {
		if g.Kind != trace.Blob.String() && g.Kind != trace.Manifest.String() {
			continue
		}
		asked += g.Count
		if hit, _ := report.Hit(g.Outcome); hit {
			hits += g.Count
		}
	}
	return float64(hits) / float64(max(asked, 1)), asked
}

// metered returns the same of the cache's own metrics.
func metered(t *testing.T, i *instance.Instance) float64 {
	t.Helper()
	m, err := i.Scrape(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	const name = "reprise_registry_cache_requests_total"
	count := func(labels ...string) float64 {
		return m.Sum(name, append(labels, `kind="blobs"`)...) + m.Sum(name, append(labels, `kind="manifests"`)...)
	}
	return count(`outcome="hit"`) / count()
}

// TestClosedLoop has a registry cache record what it is asked for, simulates that,
// sets what is recommended, and replays it: the hit ratio is the one that was
// predicted. It is so for policies that would not be recommended, too.
//
// The replay is as fast as it goes, so that ages do not matter; there are none in
// what is recommended for a recording that took less than two hours. The tier of
// memory before the disk is off: the simulation knows of the disk only, and a tier as
// large as the disk would keep what the disk gives up.
func TestClosedLoop(t *testing.T) {
	size := recordedLoop{requests: 3500, by: 22, disk: 64 << 20, others: []string{policy.NameS3FIFO}}
	if full() {
		size = recordedLoop{requests: 30_000, by: 60, disk: 256 << 20, others: []string{
			policy.NameLRU, policy.NameFIFO, policy.NameS3FIFO, policy.NameSIEVE, policy.NameARC,
		}}
	}
	g, err := generate.New(generate.Config{Requests: size.requests, Seed: 7, Rate: 50, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	l := beginLoop(t, squeezed{g, size.by, 16 << 20})
	if l.cached, err = instance.Build(t.Context(), "../..", l.dir); err != nil {
		t.Fatal(err)
	}
	recording := l.cache("recording", values{
		"gc":        values{"disk": values{"maxSize": "100GiB", "minFree": "0B"}, "layers": noAges, "manifests": noAges},
		"accessLog": values{"path": l.path("access.json"), "format": "trace", "anonymize": false},
	})
	ratio, asked := hitsOf(l.run(playing{file: l.path("trace.jsonl"), registry: "http://" + recording.Address, interim: true, threads: 4, rounds: 1}))
	l.stop(recording)
	t.Logf("recorded: %d reads, %.4f of them hits of a cache with room for everything", asked, ratio)

	advice := l.recommend(l.path("access.json"), size.disk)
	if advice.Expected.Evicted < 30 {
		t.Errorf("only %d evictions are expected: this compares nothing", advice.Expected.Evicted)
	}
	l.again(advice, advice.Expected, "0B")
	if full() { // what the tier of memory is for
		l.again(advice, advice.Expected, "64MiB")
	}
	for _, c := range advice.Tried {
		if c.Capacity == size.disk && c.MaxUnused == 0 && slices.Contains(size.others, c.Policy) {
			l.again(&simulate.Advice{Policy: c.Policy, MaxSize: size.disk}, c, "0B")
		}
	}
}

// again replays what was recorded with other settings, by which hits are expected,
// and with so much memory before the disk.
func (l *loop) again(set *simulate.Advice, expected simulate.Cell, memory string) {
	l.t.Helper()
	cache := l.cache(set.Policy+"-"+memory, values{
		"gc": values{
			"policy":    set.Policy,
			"disk":      values{"maxSize": set.MaxSize, "minFree": "0B"},
			"layers":    ages(set.Layers),
			"manifests": ages(set.Manifests),
		},
		"server": values{"memory": memory},
	})
	observed, n := hitsOf(l.run(playing{file: l.path("access.json"), registry: "http://" + cache.Address, threads: 4, rounds: 1}))
	own := metered(l.t, cache)
	l.stop(cache)
	if err := os.RemoveAll(cache.Data); err != nil {
		l.t.Error(err)
	}
	predicted := expected.All.Ratio()
	l.t.Logf("%-8s predicted %.4f, observed %.4f of %d reads, %.4f by the cache's metrics, with %s of memory", set.Policy, predicted, observed, n, own, memory)
	if int64(expected.All.Requests) != n {
		l.t.Errorf("%s: simulated were %d reads, replayed %d", set.Policy, expected.All.Requests, n)
	}
	// Small blobs and manifests that the disk gave up may still be in memory.
	if d := observed - predicted; d < -0.01 || d > 0.01 && memory == "0B" {
		l.t.Errorf("%s: predicted is a hit ratio of %.4f, observed %.4f", set.Policy, predicted, observed)
	}
	if math.Abs(observed-own) > 0.0001 {
		l.t.Errorf("%s: clients saw a hit ratio of %.4f, the cache %.4f", set.Policy, observed, own)
	}
}

func ages(a simulate.Ages) values {
	return values{"maxAge": a.MaxAge.String(), "maxUnused": a.MaxUnused.String()}
}

// noAges has nothing be forgotten for its age.
var noAges = values{"maxAge": "0s", "maxUnused": "0s"}

// recommend returns the settings that the simulator recommends for an access log.
func (l *loop) recommend(log string, disk int64) *simulate.Advice {
	l.t.Helper()
	files, err := trace.Open(trace.Config{Files: []string{log}})
	if err != nil {
		l.t.Fatal(err)
	}
	defer files.Close()
	d, err := simulate.Decode(l.t.Context(), files, simulate.Scope{})
	if err != nil {
		l.t.Fatal(err)
	}
	advice, err := simulate.Recommend(l.t.Context(), d, simulate.Limits{Disk: disk})
	if err != nil {
		l.t.Fatal(err)
	}
	var text strings.Builder
	if err := advice.WriteText(&text); err != nil {
		l.t.Fatal(err)
	}
	l.t.Logf("%d objects of %d bytes\n%s", d.Objects(), d.Bytes(), text.String())
	return advice
}
