package replayer_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// originalConfig is a configuration as the original's users have it: all its keys,
// with comments behind values, between items and on lines of their own. Only the
// addresses and paths are the test's.
const originalConfig = `# settings of one replay
client_info: # who sends, only for run
    client_list:
        - %[1]s
        - %[2]s
        # - another machine, another port
    port: 8080 # where results are sent back to
    threads: 100 # of each client
    wait: true # send when it is time, or else at once
    route: true # one client of the trace stays with one client here

verbose: true # may be left out

trace: # always needed
    location: %[3]s # where the program runs, if left out
    traces:
        - prod-dal09-logstash-2017.08.01-0.json # there may be more
        - prod-dal09-logstash-2017.08.01-1.json
    # all of it without a limit
    limit: 
        type: requests # or seconds
        amount: 100

    output: results.json # of run only

registry:
    - %[4]s # warmup fills the first

warmup: # of warmup and of run
    output: interm.json # which blob stands for which URI

    threads: 100 # uploads at a time

    random: true # bytes as they come, and not zeros

simulate: # of simulate only
    name: cache.py #the file with init
    args: # what init gets behind the requests
        cache_size: 8 # in GB
`

// ownPlugin is a plugin by the original's contract. It writes down what it is told.
const ownPlugin = `import json

def init(requests, args):
    print("%d requests, cache of %r" % (len(requests), args["cache_size"]))
    with open("told.json", "w") as f:
        json.dump(requests, f)
`

// original is a desk with the configuration above and a trace of 160 requests in two
// files that overlap in time, of which the limit takes the first 100.
func original(t *testing.T, registry string, clients ...string) (*desk, []record) {
	d := newDesk(t)
	traces := filepath.Join(d.dir, "dal09")
	if err := os.Mkdir(traces, 0o755); err != nil {
		t.Fatal(err)
	}
	all := pulls(160, 10*time.Millisecond).records
	var files [2][]record
	for i, r := range all {
		files[i/4%2] = append(files[i/4%2], r)
	}
	for i, records := range files {
		d.write(fmt.Sprintf("dal09/prod-dal09-logstash-2017.08.01-%d.json", i), array(t, records))
	}
	d.write("config.yaml", fmt.Sprintf(originalConfig, clients[0], clients[1], traces, registry))
	return d, all
}

// TestOriginalConfiguration runs all three modes with a configuration of the original,
// asked for as its scripts do, with two client processes and a real registry.
func TestOriginalConfiguration(t *testing.T) {
	t.Parallel()
	registry := startRegistry(t, "")
	desk := newDesk(t)
	first, a := desk.client()
	second, b := desk.client()
	d, all := original(t, registry.address, a, b)
	taken := all[:100]

	d.run(0, "-c", "warmup", "-i", "config.yaml")
	known := d.interim("interm.json")
	checkWarm(t, registry, known, taken)

	ran := d.run(0, "-c", "run", "-i", "config.yaml")
	well, failed, size := statistics(t, ran.out.String())
	rs := d.results("results.json")
	if well != len(taken) || failed != 0 || len(rs) != len(taken) {
		t.Errorf("%d requests went well, %d failed, the results file has %d; want %d, 0, %[4]d", well, failed, len(rs), len(taken))
	}
	checkResults(t, rs, taken, size)
	for _, p := range []*process{first, second} {
		select {
		case <-p.done:
			t.Errorf("%s ended with its job", p.name)
		default:
		}
	}

	simulated := d.run(0, "-c", "simulate", "-i", "config.yaml")
	checkBuiltIn(t, simulated.out.String())

	d.write("cache.py", ownPlugin)
	simulated = d.run(0, "-c", "simulate", "-i", "config.yaml")
	checkTold(t, d, simulated.out.String(), all, 100)
}

// checkWarm compares an interim map, and the registry, with what records read.
func checkWarm(t *testing.T, s *server, known map[string]string, records []record) {
	t.Helper()
	want := map[string]int64{}
	for _, r := range records {
		if (r.Method == "GET" || r.Method == "HEAD") && r.Status < 400 && r.URI != "v2" {
			want[r.URI] = max(want[r.URI], r.Written)
		}
	}
	for uri := range known {
		if _, read := want[uri]; !read {
			t.Errorf("%s is in the map and is not read", uri)
		}
	}
	digests := map[string]string{}
	for uri, size := range want {
		body, status := fetch(t, s.url()+"/"+registryPath(uri, known[uri]), "application/vnd.oci.image.manifest.v1+json")
		if status != http.StatusOK || digestOf(body) != known[uri] {
			t.Errorf("%s: answer %d of %s, the map says %s", uri, status, digestOf(body), known[uri])
		}
		if strings.Contains(uri, "/manifests/") {
			checkManifest(t, s, uri, body)
			continue
		}
		// Of what is only looked at nobody knows the size.
		if size > 0 && int64(len(body)) != size {
			t.Errorf("%s has %d bytes, recorded are %d", uri, len(body), size)
		}
		if other := digests[known[uri]]; other != "" && len(body) > 8 {
			t.Errorf("%s and %s are the same blob", uri, other)
		}
		digests[known[uri]] = uri
		if packed := compressed(body); len(body) > 1000 && packed < len(body)*9/10 {
			t.Errorf("%s: %d bytes are %d compressed", uri, len(body), packed)
		}
	}
}

// registryPath is where the blob of a URI is, by its digest, or the manifest, by its
// tag.
func registryPath(uri, digest string) string {
	if i := strings.Index(uri, "/blobs/"); i >= 0 {
		return uri[:i] + "/blobs/" + digest
	}
	return uri
}

// checkManifest follows a manifest to its layers.
func checkManifest(t *testing.T, s *server, uri string, body []byte) {
	t.Helper()
	var m struct {
		Layers []struct {
			Digest string `json:"digest"`
			Size   int64  `json:"size"`
		} `json:"layers"`
	}
	if err := json.Unmarshal(body, &m); err != nil || len(m.Layers) == 0 {
		t.Errorf("%s lists no layers: %v in %.200s", uri, err, body)
	}
	for _, l := range m.Layers {
		repo, _, _ := strings.Cut(uri, "/manifests/")
		if layer, status := fetch(t, s.url()+"/"+repo+"/blobs/"+l.Digest); status != http.StatusOK || int64(len(layer)) != l.Size {
			t.Errorf("%s lists %s of %d bytes: answer %d of %d bytes", uri, l.Digest, l.Size, status, len(layer))
		}
	}
}

// checkResults compares a results file with the records that were replayed.
func checkResults(t *testing.T, rs []result, records []record, size int) {
	t.Helper()
	count := func(uri, method string) string { return method + " " + uri }
	want, got := map[string]int{}, map[string]int{}
	for _, r := range records {
		want[count(r.URI, r.Method)]++
	}
	sum, begin, end := 0.0, math.Inf(1), 0.0
	for _, r := range rs {
		got[count(r.URI, r.Method)]++
		sum += *r.Size
		begin, end = min(begin, *r.Time), max(end, *r.Time)
		if r.failed() {
			t.Errorf("%s %s failed: %s", r.Method, r.URI, r.Error)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("sent were %v, recorded %v", got, want)
	}
	if int(sum) != size {
		t.Errorf("the sizes of the results are %.0f bytes together, the summary says %d", sum, size)
	}
	// Nothing is sent before it is due, on the clock of whichever client.
	first, err := time.Parse(time.RFC3339, records[0].Timestamp)
	if err != nil {
		t.Fatal(err)
	}
	last, err := time.Parse(time.RFC3339, records[len(records)-1].Timestamp)
	if err != nil {
		t.Fatal(err)
	}
	if took := end - begin; took < last.Sub(first).Seconds()-0.1 {
		t.Errorf("sent within %f s, recorded within %s", took, last.Sub(first))
	}
}

// checkBuiltIn looks at what the simulator of caches that is built in prints: the
// original's lines. 8 GiB hold all, and so there are no evictions before which
// anything would count.
func checkBuiltIn(t *testing.T, out string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if lines[0] != "running cache simulation" {
		t.Errorf("the first line is %q", lines[0])
	}
	var figures []string
	for _, l := range lines[1:] {
		switch {
		case regexp.MustCompile(`^\d+% done$`).MatchString(l):
		case regexp.MustCompile(`^0 (10|15|20) (lmu|h) (hits|misses): \d+$`).MatchString(l):
			figures = append(figures, l)
		default:
			t.Errorf("line %q is none of the original's", l)
		}
	}
	if len(figures) != 12 {
		t.Errorf("%d figures, want 12:\n%s", len(figures), out)
	}
}

// checkTold compares what a plugin was told with the records, by the original's rules:
// the first so many GETs and PUTs of manifests and blobs with bytes, in order of time,
// delays from the first of them in seconds.
func checkTold(t *testing.T, d *desk, out string, records []record, limit int) {
	t.Helper()
	var told []map[string]any
	if err := json.Unmarshal(d.read("told.json"), &told); err != nil {
		t.Fatal(err)
	}
	var want []map[string]any
	first := time.Time{} // of those that it takes: before it may have been pings
	for _, r := range records {
		if len(want) == limit {
			break
		}
		if r.Method == "GET" && r.Written > 0 && r.URI != "v2" {
			at, err := time.Parse(time.RFC3339, r.Timestamp)
			if err != nil {
				t.Fatal(err)
			}
			if first.IsZero() {
				first = at
			}
			want = append(want, map[string]any{
				"delay": at.Sub(first).Seconds(), "uri": r.URI, "size": float64(r.Written), "method": "GET", "duration": r.Duration, "client": r.Client,
			})
		}
	}
	if line := fmt.Sprintf("%d requests, cache of 8\n", len(want)); out != line {
		t.Errorf("the plugin printed %q, want %q", out, line)
	}
	if len(told) != len(want) {
		t.Fatalf("the plugin was told of %d requests, want %d", len(told), len(want))
	}
	for i := range want {
		got, w := told[i], want[i]
		for _, key := range []string{"delay", "duration"} {
			if math.Abs(got[key].(float64)-w[key].(float64)) > 1e-6 {
				t.Errorf("request %d: %s is %v, want %v", i, key, got[key], w[key])
			}
		}
		for _, key := range []string{"uri", "size", "method", "client"} {
			if got[key] != w[key] {
				t.Errorf("request %d: %s is %v, want %v", i, key, got[key], w[key])
			}
		}
		if keys := slices.Sorted(maps.Keys(got)); !slices.Equal(keys, []string{"client", "delay", "duration", "method", "size", "uri"}) {
			t.Errorf("request %d has the keys %v", i, keys)
		}
	}
}

// TestCompatPython runs the configuration as the original itself would have: all in
// one repository, manifests as blobs, of zeros where random is not asked for, and what
// the interim map does not have is pushed.
func TestCompatPython(t *testing.T) {
	t.Parallel()
	registry := startRegistry(t, "")
	d := newDesk(t)
	trace := pulls(80, 5*time.Millisecond)
	trace.add(time.Second/2, 1, "PUT", "v2/"+token("u")+"/"+token("r")+"/blobs/uploads/"+token("upload"), 201, 5000)
	trace.add(time.Second/2, 1, "PUT", "v2/"+token("u")+"/"+token("r")+"/manifests/"+token("new"), 201, 600)
	trace.add(time.Second/2, 1, "GET", blobURI("repository 0", 50), 404, 90) // the original did not look at status
	d.write("trace.json", array(t, trace.records))
	config := values{
		"client_info": values{"threads": 8, "wait": true}, "trace": values{"traces": []string{"trace.json"}, "output": "results.json"},
		"registry": []string{registry.address}, "warmup": values{"output": "interm.json", "threads": 4},
	}
	d.configure(config)
	taken := map[string]int64{}
	requests, size := 0, int64(0)
	for _, r := range trace.records {
		if (r.Method == "GET" || r.Method == "PUT") && r.Written > 0 && r.URI != "v2" {
			requests, size = requests+1, size+r.Written
			if r.Method == "GET" {
				taken[r.URI] = r.Written
			}
		}
	}
	d.run(0, "--compat-python", "-c", "warmup", "-i", "config.yaml")
	known := d.interim("interm.json")
	if !slices.Equal(slices.Sorted(maps.Keys(known)), slices.Sorted(maps.Keys(taken))) {
		t.Errorf("the map has %v, want %v", slices.Sorted(maps.Keys(known)), slices.Sorted(maps.Keys(taken)))
	}
	for uri, digest := range known {
		if want := digestOf(make([]byte, taken[uri])); digest != want {
			t.Errorf("%s, of %d bytes, is not that many zeros", uri, taken[uri])
		}
		if _, status := fetch(t, registry.url()+"/v2/test_repo/blobs/"+digest); status != http.StatusOK {
			t.Errorf("%s: test_repo answers %d", uri, status)
		}
	}
	ran := d.run(0, "run", "-i", "config.yaml", "--compat-python")
	well, failed, sent := statistics(t, ran.out.String())
	if well != requests || failed != 0 || int64(sent) != size {
		t.Errorf("%d requests went well, %d failed, %d bytes; want %d, 0, %d", well, failed, sent, requests, size)
	}
	puts := 0
	for _, r := range d.results("results.json") {
		if r.Method == "PUT" {
			puts++
		}
	}
	if puts != 2 {
		t.Errorf("%d PUTs, want 2", puts)
	}
	catalog, _ := fetch(t, registry.url()+"/v2/_catalog")
	if !bytes.Contains(catalog, []byte(`["test_repo"]`)) {
		t.Errorf("the registry has repositories other than test_repo: %s", catalog)
	}
}
