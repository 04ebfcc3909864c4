package replayer_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cache/workload/generate"
	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/outcome"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// reads has the blobs and manifests of a trace only, n of them.
type reads struct {
	trace.Reader
	left int
}

func (r *reads) Next() (trace.Request, error) {
	for {
		x, err := r.Reader.Next()
		if err == nil && r.left == 0 {
			err = io.EOF
		}
		if k := x.Target().Kind; err != nil || k == trace.Blob || k == trace.Manifest {
			r.left--
			return x, err
		}
	}
}

// TestByteExact replays ten times what was pushed to a real registry, and compares
// the digest of every answer. Then it does so through a proxy that changes one byte
// of one blob: exactly the requests for that one are reported.
func TestByteExact(t *testing.T) {
	const rounds = 10
	n := 1000
	if full() {
		n = 10_000
	}
	g, err := generate.New(generate.Config{Seed: 11, Rate: 50, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	l := beginLoop(t, squeezed{&reads{g, n}, 200, 4 << 20})
	s := l.run(playing{file: l.path("trace.jsonl"), registry: l.upstream, interim: true, threads: 8, rounds: rounds})
	_, asked := hitsOf(s)
	var bytes int64
	for _, g := range s.Groups {
		bytes += g.Bytes
	}
	t.Logf("%d requests, %d bytes, %d failed", asked, bytes, s.Failed().Count)
	if asked != int64(n)*rounds || s.Failed().Count != 0 || len(s.Failures) != 0 {
		t.Errorf("%d requests, want %d; failures: %+v", asked, n*rounds, s.Failures)
	}
	l.damaged()
}

// damaged replays the trace once, with the blob that it reads first damaged on its
// way.
func (l *loop) damaged() {
	l.t.Helper()
	known, err := outcome.ReadMap(l.path("interim.json"))
	if err != nil {
		l.t.Fatal(err)
	}
	files, err := trace.Open(trace.Config{Files: []string{l.path("trace.jsonl")}})
	if err != nil {
		l.t.Fatal(err)
	}
	defer files.Close()
	victim, want := "", int64(0)
	for {
		x, err := files.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			l.t.Fatal(err)
		}
		if victim == "" && x.Target().Kind == trace.Blob {
			victim = known[x.URI]
		}
		if victim != "" && known[x.URI] == victim {
			want++
		}
	}
	proxy := httptest.NewServer(inverting(l.t, l.upstream, victim))
	defer proxy.Close()
	s := l.run(playing{file: l.path("trace.jsonl"), registry: proxy.URL, interim: true, threads: 8, rounds: 1, fails: true})
	if got := s.Failed().Count; got != want || want == 0 {
		l.t.Errorf("one blob is damaged: %d requests failed, want %d", got, want)
	}
	for _, f := range s.Failures {
		if f.Cause != load.CauseMismatch {
			l.t.Errorf("failed because of %s: %s", f.Cause, f.Example)
		}
	}
}

// inverting is a proxy that inverts the last byte of one blob.
func inverting(t *testing.T, to, victim string) http.Handler {
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	p := httputil.NewSingleHostReverseProxy(target)
	p.ModifyResponse = func(r *http.Response) error {
		if r.Request.Method != http.MethodGet || !strings.HasSuffix(r.Request.URL.Path, victim) {
			return nil
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if len(body) > 0 {
			body[len(body)-1] ^= 0xff
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		return err
	}
	return p
}
