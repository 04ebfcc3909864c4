package accesslog_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/cache/proxy"
	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/cmd/internal/accesslog"
)

var blob = proxy.Record{
	Host: "cache.example:7000", Upstream: "registry.example", Repo: "team/app", Kind: proxy.KindBlob,
	Reference: "sha256:" + strings.Repeat("ab", 32), Method: "GET",
	Path: "/v2/team/app/blobs/sha256:" + strings.Repeat("ab", 32), Status: 206, Bytes: 9576,
	Start:    time.Date(2017, 6, 20, 4, 41, 18, 399_999_999, time.FixedZone("", 7200)),
	Duration: 1005269323 * time.Nanosecond, Outcome: proxy.OutcomePartial,
	UserAgent: "docker/17.03.1-ce \"go\"\n}\n{", RemoteAddr: "192.0.2.7:51234",
}

func open(t *testing.T, cfg accesslog.Config) *accesslog.Log {
	t.Helper()
	l, err := accesslog.Open(cfg, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closed(t *testing.T, l *accesslog.Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// requests parses a trace as the replayer of the traces does: one array.
func requests(t *testing.T, path string) []trace.Record {
	t.Helper()
	var out []trace.Record
	d := json.NewDecoder(strings.NewReader(text(t, path)))
	d.DisallowUnknownFields()
	if err := d.Decode(&out); err != nil {
		t.Fatalf("%v in\n%s", err, text(t, path))
	}
	return out
}

func TestJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, accesslog.Config{Path: path})
	l.Observe(blob)
	l.Observe(proxy.Record{Method: "GET", Path: "/", Kind: proxy.KindUnknown, Status: 404, Outcome: proxy.OutcomeError, Aborted: true})
	closed(t, l)
	lines := strings.Split(strings.TrimSuffix(text(t, path), "\n"), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines: %q", len(lines), lines)
	}
	var e accesslog.Entry
	if err := json.Unmarshal([]byte(lines[0]), &e); err != nil {
		t.Fatal(err)
	}
	want := accesslog.Entry{
		Time: "2017-06-20T02:41:18.399999999Z", Client: "192.0.2.7", Method: "GET", Host: blob.Host, Path: blob.Path,
		Upstream: blob.Upstream, Repo: blob.Repo, Kind: "blobs", Reference: blob.Reference, Status: 206, Bytes: 9576,
		Seconds: 1.005269323, Outcome: "partial", UserAgent: blob.UserAgent,
	}
	if e != want {
		t.Errorf("read\n%+v, want\n%+v", e, want)
	}
	if strings.Contains(lines[1], "upstream") || !strings.Contains(lines[1], `"aborted":true`) {
		t.Errorf("second line %s", lines[1])
	}
}

// The schema, byte by byte: names, types, no slash before the URI, milliseconds.
func TestTrace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, accesslog.Config{Path: path, Trace: true})
	l.Observe(blob)
	l.Observe(proxy.Record{Method: "GET", Path: "/v2/", Host: "h", Kind: proxy.KindBase, Status: 200, Start: time.Unix(0, 0)})
	closed(t, l)
	got := text(t, path)
	form := regexp.MustCompile(`^\[\n\{"host":"registry.example","http.request.duration":1.005269323,"http.request.method":"GET",` +
		`"http.request.remoteaddr":"192.0.2.7","http.request.uri":"v2/team/app/blobs/sha256:(ab){32}","http.request.useragent":"[^\n]*",` +
		`"http.response.status":206,"http.response.written":9576,"id":"[0-9a-f]{10}","timestamp":"2017-06-20T02:41:18.399Z"\},\n` +
		`\{"host":"h",[^\n]*"http.request.uri":"v2",[^\n]*"timestamp":"1970-01-01T00:00:00.000Z"\}\n\]\n$`)
	if !form.MatchString(got) {
		t.Errorf("wrote\n%s", got)
	}
	rs := requests(t, path)
	if len(rs) != 2 || rs[0].UserAgent != blob.UserAgent || rs[0].ID == rs[1].ID {
		t.Errorf("read %+v", rs)
	}
}

// What is logged is a trace that can be replayed: also what no registry is asked for,
// names no HTTP client would send, and parts of blobs.
func TestTraceIsRead(t *testing.T) {
	for _, anonymize := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "log")
		l := open(t, accesslog.Config{Path: path, Trace: true, Anonymize: anonymize, Salt: []byte("salt")})
		part := blob
		part.Range = "bytes=4096-13671"
		asked := []proxy.Record{
			part, {Method: "GET", Path: "/", Kind: proxy.KindUnknown, Status: 404},
			{Method: "GET", Path: "", Kind: proxy.KindUnknown, Status: 400, Duration: -1},
			{Method: "G\xff\n", Path: "//x/\"?" + strings.Repeat("\u00e9", 600), UserAgent: "\x00", Kind: proxy.KindUnknown, Host: "\\"},
			{Method: "HEAD", Path: "/v2/", Kind: proxy.KindBase, Status: 200},
		}
		for i, r := range asked {
			r.Start = blob.Start.Add(time.Duration(i) * time.Second)
			l.Observe(r)
		}
		closed(t, l)
		f, err := trace.Open(trace.Config{Files: []string{path}})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for i := range asked {
			r, err := f.Next()
			if err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			if r.Delay != time.Duration(i)*time.Second || r.Status != asked[i].Status {
				t.Errorf("%d is %+v", i, r)
			}
			if i == 0 && (r.Off != 4096 || r.Len != 9576 || r.Size != 9576 || r.Target().Kind != trace.Blob) {
				t.Errorf("a part is %+v", r)
			}
		}
		if _, err := f.Next(); err != io.EOF {
			t.Errorf("after the last: %v", err)
		}
	}
}

// After each write, and after a restart, the file is one array; what a crash cut off
// is overwritten.
func TestTraceIsAlwaysAnArray(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	cfg := accesslog.Config{Path: path, Trace: true}
	closed(t, open(t, cfg))
	if got := text(t, path); got != "" {
		t.Errorf("without a request it is %q", got)
	}
	write := func(n int) {
		l := open(t, cfg)
		for range n {
			l.Observe(blob)
		}
		closed(t, l)
	}
	write(1)
	write(3)
	whole := text(t, path)
	if n := len(requests(t, path)); n != 4 {
		t.Fatalf("%d records, want 4", n)
	}
	for cut := range len(whole) {
		if err := os.WriteFile(path, []byte(whole[:cut]), 0o600); err != nil {
			t.Fatal(err)
		}
		complete := strings.Count(whole[:cut], "}\n") + strings.Count(whole[:cut], "},\n")
		if cut == 1 { // "[": not one of ours yet
			if _, err := accesslog.Open(cfg, nil); err == nil {
				t.Error("a file with one byte is taken for a trace")
			}
			continue
		}
		write(2)
		if n := len(requests(t, path)); n != complete+2 {
			t.Fatalf("cut at %d of %d: %d records, want %d", cut, len(whole), n, complete+2)
		}
	}
}

func TestTraceRefusesOtherFiles(t *testing.T) {
	for _, content := range []string{"x", "{}\n", "[1]\n", "[\n" + strings.Repeat("x", 128<<10)} {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := accesslog.Open(accesslog.Config{Path: path, Trace: true}, nil); err == nil {
			t.Errorf("%.20q is taken for a trace", content)
		}
		if got := text(t, path); got != content {
			t.Errorf("%.20q became %.20q", content, got)
		}
	}
	if _, err := accesslog.Open(accesslog.Config{Path: "/dev/null", Trace: true}, nil); err == nil {
		t.Error("a device is taken for a trace")
	}
	if _, err := accesslog.Open(accesslog.Config{Path: filepath.Join(t.TempDir(), "none", "log")}, nil); err == nil {
		t.Error("a folder that is missing is no error")
	}
}

var token = regexp.MustCompile(`^[0-9a-f]{8}$`)

func TestAnonymous(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, salt string) trace.Record {
		path := filepath.Join(dir, name)
		l := open(t, accesslog.Config{Path: path, Trace: true, Anonymize: true, Salt: []byte(salt)})
		l.Observe(blob)
		closed(t, l)
		return requests(t, path)[0]
	}
	r := write("a", "one")
	parts := strings.Split(r.URI, "/")
	if len(parts) != 5 || parts[0] != "v2" || parts[3] != "blobs" {
		t.Fatalf("URI %s", r.URI)
	}
	for _, s := range []string{r.Host, r.RemoteAddr, parts[1], parts[2], parts[4]} {
		if !token.MatchString(s) {
			t.Errorf("%q is no token in %+v", s, r)
		}
	}
	if again := write("b", "one"); again.URI != r.URI || again.Host != r.Host {
		t.Errorf("with the same salt %+v became %+v", r, again)
	}
	if other := write("c", "two"); other.URI == r.URI || other.RemoteAddr == r.RemoteAddr {
		t.Errorf("with another salt nothing changed: %+v", other)
	}
	for name, rec := range map[string]proxy.Record{
		"v2": {Kind: proxy.KindBase, Path: "/v2/"}, "unknown": {Kind: proxy.KindUnknown, Path: "/v2/secret/name"},
		"tags": {Kind: proxy.KindTags, Repo: "secret/name", Path: "/v2/secret/name/tags/list"},
	} {
		path := filepath.Join(dir, name)
		l := open(t, accesslog.Config{Path: path, Anonymize: true})
		l.Observe(rec)
		closed(t, l)
		if got := text(t, path); strings.Contains(got, "secret") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// What clients choose does not make lines longer than what is read at the end of a
// file.
func TestLongNamesAreCut(t *testing.T) {
	for _, trace := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "log")
		l := open(t, accesslog.Config{Path: path, Trace: trace})
		r := blob
		r.UserAgent, r.Path, r.Method, r.Host = strings.Repeat("ü\x00", 1<<16), strings.Repeat("/", 1<<16), strings.Repeat("G", 1<<16), strings.Repeat("h", 1<<16)
		l.Observe(r)
		closed(t, l)
		if n := len(text(t, path)); n > 8<<10 {
			t.Errorf("trace %v: a line of %d bytes", trace, n)
		}
	}
}

func TestReopen(t *testing.T) {
	for _, trace := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "log")
		l := open(t, accesslog.Config{Path: path, Trace: trace})
		l.Observe(blob)
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		if err := l.Reopen(); err != nil {
			t.Fatal(err)
		}
		l.Observe(blob)
		l.Observe(blob)
		closed(t, l)
		count := func(path string) int { return strings.Count(text(t, path), "registry.example") }
		if old, now := count(path+".1"), count(path); old != 1 || now != 2 {
			t.Errorf("trace %v: %d requests before and %d after, want 1 and 2", trace, old, now)
		}
	}
}

// A file that takes nothing costs requests their lines, and nobody else anything.
func TestFullDisk(t *testing.T) {
	if f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	} else {
		f.Close()
	}
	var errs []error
	var lost uint64
	synctest.Test(t, func(t *testing.T) {
		l, err := accesslog.Open(accesslog.Config{Path: "/dev/full"}, func(err error) { errs = append(errs, err) })
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { l.Run(ctx) })
		for range 20000 {
			l.Observe(blob)
		}
		time.Sleep(3 * time.Second)
		l.Observe(blob)
		time.Sleep(3 * time.Second)
		cancel()
		wg.Wait()
		lost = l.Lost()
		l.Close()
	})
	if len(errs) != 1 {
		t.Errorf("told of %d errors, want of the first: %v", len(errs), errs)
	}
	if lost == 0 {
		t.Error("nothing was lost")
	}
}

func TestParallel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, accesslog.Config{Path: path, Trace: true})
	ctx, cancel := context.WithCancel(t.Context())
	var run, all sync.WaitGroup
	run.Go(func() { l.Run(ctx) })
	for g := range 8 {
		all.Go(func() {
			for i := range 500 {
				r := blob
				r.Path = fmt.Sprintf("/v2/%d/%d", g, i)
				l.Observe(r)
			}
		})
	}
	all.Wait()
	cancel()
	run.Wait()
	closed(t, l)
	seen := map[string]bool{}
	for _, r := range requests(t, path) {
		seen[r.URI] = true
	}
	if len(seen) != 4000 || l.Lost() != 0 {
		t.Errorf("%d of 4000 requests, %d lost", len(seen), l.Lost())
	}
}

func BenchmarkObserve(b *testing.B) {
	for _, trace := range []bool{false, true} {
		b.Run(fmt.Sprintf("trace=%v", trace), func(b *testing.B) {
			l, err := accesslog.Open(accesslog.Config{Path: filepath.Join(b.TempDir(), "log"), Trace: trace}, nil)
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			var run sync.WaitGroup
			run.Go(func() { l.Run(ctx) })
			b.ReportAllocs()
			for b.Loop() {
				l.Observe(blob)
			}
			cancel()
			run.Wait()
			l.Close()
		})
	}
}
