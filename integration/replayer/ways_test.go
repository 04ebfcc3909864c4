package replayer_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSeveralRegistries replays a trace against two registries, that were filled one
// by one with what is the same in both, by each way of choosing one; and then without
// one of them.
func TestSeveralRegistries(t *testing.T) {
	t.Parallel()
	w := warmed(t, 200, time.Millisecond)
	other := startRegistry(t, "")
	w.config["registry"] = []string{other.address}
	w.with("warmup", values{"output": "other.json", "threads": 4}).run(0, "warmup", "-i", "config.yaml")
	known := w.interim("interm.json")
	for uri, digest := range w.interim("other.json") {
		if known[uri] != digest {
			t.Errorf("%s was warmed up as %s in one registry, as %s in the other", uri, known[uri], digest)
		}
	}
	w.config["registry"] = []string{w.registry.address, other.url()}
	w.with("warmup", values{"output": "interm.json"})
	for _, pick := range []string{"random", "round-robin", "host", "client"} {
		p := w.with("run", values{"pick": pick, "speed": 2}).run(0, "run", "-i", "config.yaml")
		statistics(t, p.out.String())
		count := map[string]int{}
		for _, r := range w.results("results.json") {
			count[r.Registry]++
		}
		a, b := count[w.registry.address], count[other.url()]
		if a+b != w.requests {
			t.Errorf("%s: the registries of the results are %v", pick, count)
		}
		switch {
		case pick == "host" && min(a, b) != 0, pick == "round-robin" && a != b, pick == "random" && min(a, b) < w.requests/4:
			t.Errorf("%s: %d and %d requests", pick, a, b)
		}
	}
	other.kill()
	p := w.with("run", values{"pick": "round-robin"}).run(1, "run", "-i", "config.yaml")
	if well, failed, _ := statistics(t, p.out.String()); well != w.requests/2 || failed != w.requests/2 {
		t.Errorf("without one of two registries %d went well, %d failed", well, failed)
	}
	for _, r := range w.results("results.json") {
		if r.failed() != (r.Registry == other.url()) {
			t.Errorf("%s: %s", r.Registry, r.Error)
		}
	}
}

// TestPassword warms up and replays a registry that wants a password, in a file.
func TestPassword(t *testing.T) {
	t.Parallel()
	const hash = "$2a$04$DRgYpwBhXbgDMVx36V3z6uFBao2hjGt2vyNFR4Ncz4BABxR14LX.6" // bcrypt of "secret"
	d := newDesk(t)
	d.write("htpasswd", "ann:"+hash+"\n")
	registry := startRegistry(t, "auth: {htpasswd: {realm: test, path: "+filepath.Join(d.dir, "htpasswd")+"}}\n")
	d.write("trace.json", array(t, pulls(40, time.Millisecond).records))
	config := values{
		"trace": values{"traces": []string{"trace.json"}}, "registry": []string{registry.address}, "warmup": values{"output": "interm.json"},
		"access": []values{{"registry": registry.address, "username": "ann", "password_file": "password"}},
		"report": values{"json": "run.json"},
	}
	d.configure(config)
	d.write("password", "guess")
	says(t, &d.run(1, "warmup", "-i", "config.yaml").errs, "401")
	d.write("password", "secret\n")
	d.run(0, "warmup", "-i", "config.yaml")
	d.run(0, "run", "-i", "config.yaml")
	_, client := d.client()
	config["cluster"] = cluster
	config["client_info"] = values{"client_list": []string{client}} // that are told the password
	d.configure(config)
	d.run(0, "run", "-i", "config.yaml")
	d.write("password", "guess")
	p := d.run(1, "run", "-i", "config.yaml")
	if well, failed, _ := statistics(t, p.out.String()); well != 0 || failed != 40 {
		t.Errorf("with a wrong password %d went well, %d failed", well, failed)
	}
	if text := string(d.read("run.json")); strings.Contains(text, "guess") {
		t.Error("the password is in the report")
	}
}

// TestGenerated makes a trace, warms a registry up for it from standard input, reads
// all of it back, and replays it from a compressed file, as often as it is asked to.
// Then a byte of a blob is changed, which has to be found.
func TestGenerated(t *testing.T) {
	t.Parallel()
	registry := startRegistry(t, "")
	d := newDesk(t)
	stream, digests := "", 0
	for seed := 1; ; seed++ { // of little content: the sizes are those of the world
		p := d.run(0, "generate", "-n", "120", "--read-only", "--rate", "100", "--seed", fmt.Sprint(seed))
		sizes := map[string]int64{}
		for line := range strings.Lines(p.out.String()) {
			var r record
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if r.URI != "v2" && r.Status < 400 {
				sizes[r.URI] = max(sizes[r.URI], r.Written)
			}
		}
		sum := int64(0)
		for _, size := range sizes {
			sum += size
		}
		if len(sizes) >= 8 && sum < 40<<20 {
			stream, digests = p.out.String(), len(sizes)
			d.run(0, "generate", "-n", "120", "--read-only", "--rate", "100", "--seed", fmt.Sprint(seed), "-o", "trace.jsonl.zst")
			break
		}
		if seed == 200 {
			t.Fatal("no trace is small")
		}
	}
	config := values{
		"trace": values{"traces": []string{"-"}, "output": "results.json"}, "registry": []string{registry.address},
		"warmup": values{"output": "interm.json", "threads": 4, "verify": 1},
	}
	d.configure(config)
	p := d.startWith([]byte(stream), "warmup", "-i", "config.yaml")
	if status := p.wait(); status != 0 {
		t.Fatalf("exit status %d", status)
	}
	known := d.interim("interm.json")
	if len(known) != digests {
		t.Errorf("the map has %d URIs, the trace reads %d", len(known), digests)
	}
	says(t, &p.out, fmt.Sprintf("%d read back and compared", digests))

	config["trace"] = values{"traces": []string{"trace.jsonl.zst"}, "output": "results.json"}
	config["run"] = values{"loop": 2, "speed": 2}
	config["report"] = values{"html": "run.html", "csv": "run.csv"}
	d.configure(config)
	ran := d.run(0, "run", "-i", "config.yaml")
	well, failed, _ := statistics(t, ran.out.String())
	refused := 0 // a ping is sent whatever came of it
	for line := range strings.Lines(stream) {
		if strings.Contains(line, `"http.response.status":401`) && !strings.Contains(line, `"http.request.uri":"v2",`) {
			refused += 2
		}
	}
	if well != 240-refused || failed != 0 {
		t.Errorf("%d went well, %d failed, %d were refused when recorded, of 240", well, failed, refused)
	}
	if refused > 0 {
		says(t, &ran.out, fmt.Sprintf("%d requests of the trace were not sent: the recorded registry refused them", refused))
	}

	spoilt := ""
	for uri, digest := range known {
		if strings.Contains(uri, "/blobs/") {
			spoilt = uri
			registry.spoil(t, digest)
			break
		}
	}
	ran = d.run(1, "run", "-i", "config.yaml")
	says(t, &ran.out, "mismatch")
	for _, r := range d.results("results.json") {
		if r.failed() != (known[r.URI] != "" && known[r.URI] == known[spoilt]) {
			t.Errorf("%s was changed, and %s: %s %q", spoilt, r.URI, *r.OnTime, r.Error)
		}
	}
	config["run"] = values{"check": false, "speed": 2}
	d.configure(config)
	d.run(0, "run", "-i", "config.yaml")
}

// TestReportOfRuns merges the summaries of two runs, of the two loops.
func TestReportOfRuns(t *testing.T) {
	t.Parallel()
	w := warmed(t, 80, 2*time.Millisecond)
	var bytes [2]int
	for i, wait := range []bool{true, false} {
		w.with("client_info", values{"wait": wait, "threads": 2}).with("report", values{"json": fmt.Sprintf("%d.json", i)})
		_, _, bytes[i] = statistics(t, w.run(0, "run", "-i", "config.yaml").out.String())
	}
	both := w.run(0, "report", "--json", "both.json", "--html", "both.html", "--csv", "both.csv", "0.json", "1.json")
	well, failed, sum := statistics(t, both.out.String())
	if well != 2*w.requests || failed != 0 || sum != bytes[0]+bytes[1] {
		t.Errorf("together %d went well, %d failed, %d bytes; want %d, 0, %d", well, failed, sum, 2*w.requests, bytes[0]+bytes[1])
	}
	if again := w.run(0, "report", "both.json"); again.out.String() != both.out.String() {
		t.Errorf("what was merged is told as\n%s\nand as\n%s", both.out.String(), again.out.String())
	}
	if page := string(w.read("both.html")); !strings.Contains(page, "<svg") || strings.Contains(page, "src=\"http") {
		t.Error("the page has no plots, or asks others for something")
	}
	if lines := strings.Count(string(w.read("both.csv")), "\n"); lines < 5 {
		t.Errorf("the table has %d lines", lines)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "results.json")); err != nil {
		t.Error(err)
	}
}

// TestSimulator simulates without a plugin, and writes all reports.
func TestSimulator(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write("trace.json", array(t, pulls(400, time.Second).records))
	d.configure(values{
		"trace": values{"traces": []string{"trace.json"}},
		"simulate": values{
			"sizes": []string{"10%", "50%", "100%"}, "levels": []values{{"memory": "5%", "disk": "20%"}},
			"report": values{"json": "sim.json", "html": "sim.html", "csv": "sim.csv"},
		},
	})
	p := d.run(0, "simulate", "-i", "config.yaml")
	says(t, &p.out, "lru", "fifo", "sieve", "s3fifo", "belady")
	for _, name := range []string{"sim.json", "sim.html", "sim.csv"} {
		if len(d.read(name)) == 0 {
			t.Errorf("%s is empty", name)
		}
	}
}
