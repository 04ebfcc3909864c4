package replayer_test

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// record is a record of a trace file, in the form of the published ones. It is
// written out here, since scripts outside depend on that form and not on a package.
type record struct {
	Host      string  `json:"host"`
	Duration  float64 `json:"http.request.duration"`
	Method    string  `json:"http.request.method"`
	Client    string  `json:"http.request.remoteaddr"`
	URI       string  `json:"http.request.uri"`
	UserAgent string  `json:"http.request.useragent"`
	Status    int     `json:"http.response.status"`
	Written   int64   `json:"http.response.written"`
	ID        string  `json:"id"`
	Timestamp string  `json:"timestamp"`
	Range     string  `json:"http.request.range,omitempty"`
}

var epoch = time.Date(2017, 8, 1, 0, 0, 0, 0, time.UTC)

// token is 8 hexadecimal digits that stand for a name, as the traces have it.
func token(name string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(name)))[:8] }

func blobURI(repo string, n int) string {
	return fmt.Sprintf("v2/%s/%s/blobs/%s", token(repo+" user"), token(repo), token(fmt.Sprint(repo, " blob ", n)))
}

func manifestURI(repo, tag string) string {
	return fmt.Sprintf("v2/%s/%s/manifests/%s", token(repo+" user"), token(repo), token(tag))
}

// blobSize is a size for a blob: some are empty but for a byte, most small, a few
// larger than any buffer.
func blobSize(n int) int64 {
	return []int64{1, 130, 1 << 10, 11_500, 70_000, 3, 2 << 20}[n%7] + int64(n/7)
}

// recording is a trace of pulls by several clients, with what else there is in
// traffic: pings, looks, pushes, what is not there, and what is refused.
type recording struct {
	records []record
	clients int
}

func (r *recording) add(at time.Duration, client int, method, uri string, status int, written int64) {
	n := len(r.records)
	r.records = append(r.records, record{
		Host: token("host"), Duration: 0.01 * float64(n%7), Method: method, Client: token(fmt.Sprint("client ", client%max(1, r.clients))), URI: uri,
		UserAgent: "docker/17.03.1-ce", Status: status, Written: written, ID: fmt.Sprintf("%010x", n), Timestamp: epoch.Add(at).Format("2006-01-02T15:04:05.000Z"),
	})
}

// pulls records n requests, one every so often.
func pulls(n int, every time.Duration) *recording {
	r := &recording{clients: 5}
	for i := range n {
		at, client := time.Duration(i)*every, i/8
		repo := fmt.Sprint("repository ", client%3)
		switch i % 8 {
		case 0:
			r.add(at, client, "GET", "v2", 200, 2)
		case 1:
			r.add(at, client, "GET", manifestURI(repo, "latest"), 200, 700)
		case 5:
			r.add(at, client, "HEAD", blobURI(repo, i%20), 200, 0)
		default:
			r.add(at, client, "GET", blobURI(repo, i%20), 200, blobSize(i%20))
		}
	}
	return r
}

// array returns records as the published files have them.
func array(t *testing.T, records []record) string {
	t.Helper()
	text, err := json.Marshal(records)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// result is an element of a results file; the first four fields are the original's.
type result struct {
	Time     *float64 `json:"time"`
	Duration *float64 `json:"duration"`
	OnTime   *string  `json:"onTime"`
	Size     *float64 `json:"size"`
	URI      string   `json:"uri"`
	Method   string   `json:"method"`
	Status   int      `json:"status"`
	Registry string   `json:"registry"`
	Error    string   `json:"error"`
}

func (r result) failed() bool { return *r.OnTime == "failed" }

// parseResults returns the elements of a results file by the original's rules: one
// array, of time and duration in seconds, onTime of three values, and size in bytes.
func parseResults(text []byte) ([]result, error) {
	var out []result
	if err := json.Unmarshal(text, &out); err != nil {
		return nil, err
	}
	if out == nil {
		return nil, fmt.Errorf("it is no array: %.80s", text)
	}
	for i, r := range out {
		switch {
		case r.Time == nil || r.Duration == nil || r.OnTime == nil || r.Size == nil:
			return nil, fmt.Errorf("element %d has not all four fields: %+v", i, r)
		case math.Abs(*r.Time-float64(time.Now().Unix())) > 24*60*60:
			return nil, fmt.Errorf("element %d: time %f is not of today", i, *r.Time)
		case *r.Duration < 0 || *r.Duration > patience.Seconds():
			return nil, fmt.Errorf("element %d: duration %f", i, *r.Duration)
		case !slices.Contains([]string{"yes", "no", "failed"}, *r.OnTime):
			return nil, fmt.Errorf("element %d: onTime %q", i, *r.OnTime)
		case *r.Size < 0 || *r.Size != math.Trunc(*r.Size):
			return nil, fmt.Errorf("element %d: size %f", i, *r.Size)
		}
	}
	return out, nil
}

// results returns what is in a results file.
func (d *desk) results(name string) []result {
	d.t.Helper()
	out, err := parseResults(d.read(name))
	if err != nil {
		d.t.Fatalf("%s: %v", name, err)
	}
	return out
}

// failures counts results that failed, and those that did not.
func failures(rs []result) (failed, well int) {
	for _, r := range rs {
		if r.failed() {
			failed++
		} else {
			well++
		}
	}
	return failed, well
}

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// interim returns what is in an interim map, by the original's rules: one object of
// digests, or "bad".
func (d *desk) interim(name string) map[string]string {
	d.t.Helper()
	var m map[string]string
	if err := json.Unmarshal(d.read(name), &m); err != nil {
		d.t.Fatalf("%s: %v", name, err)
	}
	for uri, v := range m {
		if v != "bad" && !digestForm.MatchString(v) {
			d.t.Errorf("%s: %s is %q", name, uri, v)
		}
	}
	return m
}

// fetch returns what a registry answers to a GET of a path.
func fetch(t *testing.T, url string, accept ...string) (body []byte, status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header["Accept"] = accept
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if body, err = io.ReadAll(r.Body); err != nil {
		t.Fatal(err)
	}
	return body, r.StatusCode
}

// compressed returns how many bytes a body is when it is packed.
func compressed(body []byte) int {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestSpeed) // the level is one there is
	w.Write(body)
	w.Close()
	return b.Len()
}

func digestOf(body []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(body)) }

// labels are what the original prints after a run, each with the form of its value.
var labels = []string{
	`Statistics`,
	`Successful Requests: (\d+)`,
	`Failed Requests: (\d+)`,
	`Duration: [0-9.]+`,
	`Data Transfered: (\d+) bytes`, //nolint:misspell // as the original has it
	`Average Latency: [0-9.]+`,
	`% requests on time: [01](?:\.\d+)?`,
	`Throughput: [0-9.]+ requests/second`,
}

// statistics finds the original's lines at the beginning of what a run printed, and
// returns successes, failures and bytes.
func statistics(t *testing.T, out string) (well, failed, size int) {
	t.Helper()
	lines := strings.Split(out, "\n")
	var found []int
	for i, label := range labels {
		m := regexp.MustCompile("^" + label + "$").FindStringSubmatch(slices.Concat(lines, make([]string, len(labels)))[i])
		if m == nil {
			t.Fatalf("line %d is not of the form %q in\n%s", i+1, label, out)
		}
		for _, text := range m[1:] {
			var n int
			fmt.Sscan(text, &n)
			found = append(found, n)
		}
	}
	return found[0], found[1], found[2]
}
