package replayer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cache/workload/generate"
	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/integration/registrycache/instance"
)

// full reports whether the sizes of the issue are to be used, not those that suit a
// test that is run often.
func full() bool { return os.Getenv("TRIAL") == "full" }

// values is short for a level of a configuration.
type values = instance.Values

// loop is a registry that a trace was pushed to, and the programs that are run
// against it.
type loop struct {
	t        *testing.T
	dir      string
	player   string // the program trace-replayer
	upstream string // URL of the registry
}

// beginLoop builds trace-replayer, starts a registry, writes the trace and has the
// program push what it asks for.
func beginLoop(t *testing.T, trc trace.Reader) *loop {
	t.Helper()
	l := &loop{t: t, dir: t.TempDir(), upstream: realRegistry(t, "")}
	l.player = filepath.Join(l.dir, "trace-replayer")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", l.player, "./cmd/trace-replayer")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building trace-replayer: %v\n%s", err, out)
	}
	l.write(trc)
	t.Log(l.play("warmup", values{
		"trace": values{"traces": []string{l.path("trace.jsonl")}}, "registry": []string{l.upstream},
		"warmup": values{"output": l.path("interim.json"), "threads": 8, "verify": 0.05},
	}))
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

// play runs a mode of trace-replayer, which must succeed, and returns what it printed.
func (l *loop) play(mode string, config values) string {
	l.t.Helper()
	text, err := json.Marshal(config) // what is JSON is YAML
	if err == nil {
		err = os.WriteFile(l.path(mode+".yaml"), text, 0o600)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	var out, said bytes.Buffer
	cmd := exec.CommandContext(l.t.Context(), l.player, "-c", mode, "-i", l.path(mode+".yaml"))
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		l.t.Fatalf("trace-replayer %s: %v\n%s\n%.4000s", mode, err, out.String(), said.String())
	}
	return out.String()
}

// run replays a file in a closed loop and returns the report.
func (l *loop) run(file, registry string, interim bool, threads int) *report.Summary {
	l.t.Helper()
	config := values{
		"client_info": values{"wait": false, "threads": threads},
		"trace":       values{"traces": []string{file}, "output": l.path("results.json")},
		"registry":    []string{registry},
		"report":      values{"json": l.path("report.json")},
	}
	if interim {
		config["warmup"] = values{"output": l.path("interim.json")}
	}
	l.play("run", config)
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
func (l *loop) cache(name, program string, over values) *instance.Instance {
	l.t.Helper()
	dir := l.path(name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		l.t.Fatal(err)
	}
	i, err := instance.New(instance.Config{
		Program: program, Dir: dir, Upstream: strings.TrimPrefix(l.upstream, "http://"), Values: over,
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
// predicted.
//
// The replay is as fast as it goes, so that ages do not matter; there are none in
// what is recommended for a recording that took less than two hours. The tier of
// memory before the disk is off: the simulation knows of the disk only, and a tier as
// large as the disk would keep what the disk gives up.
func TestClosedLoop(t *testing.T) {
	size := recordedLoop{requests: 9000, by: 150, disk: 64 << 20}
	if full() {
		size = recordedLoop{requests: 60_000, by: 60, disk: 512 << 20}
	}
	g, err := generate.New(generate.Config{Requests: size.requests, Seed: 7, Rate: 50, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	l := beginLoop(t, squeezed{g, size.by, 16 << 20})
	program, err := instance.Build(t.Context(), "../..", l.dir)
	if err != nil {
		t.Fatal(err)
	}
	log := l.path("access.json")
	recording := l.cache("recording", program, values{
		"gc":        values{"disk": values{"maxSize": "100GiB", "minFree": "0B"}, "layers": noAges, "manifests": noAges},
		"accessLog": values{"path": log, "format": "trace", "anonymize": false},
	})
	ratio, asked := hitsOf(l.run(l.path("trace.jsonl"), "http://"+recording.Address, true, 4))
	l.stop(recording)
	t.Logf("recorded: %d reads, %.4f of them hits of a cache with room for everything", asked, ratio)

	advice := l.recommend(log, size.disk)
	set := values{"gc": values{
		"policy":    advice.Policy,
		"disk":      values{"maxSize": advice.MaxSize, "minFree": "0B"},
		"layers":    values{"maxAge": advice.Layers.MaxAge.String(), "maxUnused": advice.Layers.MaxUnused.String()},
		"manifests": values{"maxAge": advice.Manifests.MaxAge.String(), "maxUnused": advice.Manifests.MaxUnused.String()},
	}, "server": values{"memory": "0B"}}
	again := l.cache("again", program, set)
	observed, n := hitsOf(l.run(log, "http://"+again.Address, false, 4))
	own := metered(t, again)
	predicted := advice.Expected.All.Ratio()
	t.Logf("predicted %.4f, observed %.4f of %d reads, %.4f by the cache's metrics", predicted, observed, n, own)
	if int64(advice.Expected.All.Requests) != n {
		t.Errorf("simulated were %d reads, replayed %d", advice.Expected.All.Requests, n)
	}
	if math.Abs(predicted-observed) > 0.01 || math.Abs(observed-own) > 0.0001 {
		t.Errorf("predicted are hits of %.4f, observed %.4f, by the metrics %.4f", predicted, observed, own)
	}
	if advice.Expected.Evicted < 100 {
		t.Errorf("only %d evictions are expected: this compares nothing", advice.Expected.Evicted)
	}
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
