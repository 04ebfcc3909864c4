package cachechain_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cmd/internal/cachechain"
	"github.com/reprise-containers/reprise/cmd/internal/cacheconfig"
	"github.com/reprise-containers/reprise/cmd/internal/certs"
	"github.com/reprise-containers/reprise/cmd/internal/program"
)

// open puts a chain together, and runs it for the time of the test.
func open(t *testing.T, cfg cacheconfig.Cache) (c *cachechain.Chain, log string, err error) {
	t.Helper()
	cfg.DataPath = t.TempDir()
	data, err := cachechain.OpenDataPath(cfg.DataPath)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { data.Close() })
	keys, err := certs.New(certs.Files{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	c, err = cachechain.Open(cfg, data, keys, cachechain.Watch{Log: slog.New(slog.NewTextHandler(&text, nil))})
	log = text.String()
	if err != nil {
		return nil, log, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- program.Run(ctx, c.Stages()...) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, log, nil
}

func TestErrorsOfConfiguration(t *testing.T) {
	for want, change := range map[string]func(s *cacheconfig.Server){
		"regex": func(s *cacheconfig.Server) { s.UpstreamRules = []cacheconfig.Rule{{Regex: "(", Host: "a.example"}} },
		"group": func(s *cacheconfig.Server) {
			s.UpstreamRules = []cacheconfig.Rule{{Regex: "a", Host: "$group1.example"}}
		},
		"host":           func(s *cacheconfig.Server) { s.DefaultBackend.Host = "a b" },
		`registry "a/b"`: func(s *cacheconfig.Server) { s.Registries = map[string]cacheconfig.Backend{"a/b": {}} },
		"token":          func(s *cacheconfig.Server) { s.AuthRealms = []string{"https://auth.example/"} },
		"10.0.0.0/40":    func(s *cacheconfig.Server) { s.AllowAddresses = []string{"10.0.0.0/40"} },
	} {
		cfg := cacheconfig.Default()
		cfg.Server.DefaultBackend.Host = "registry.example"
		change(&cfg.Server)
		_, _, err := open(t, cfg)
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestWarnsOfDots(t *testing.T) {
	cfg := cacheconfig.Default()
	cfg.Server.UpstreamRules = []cacheconfig.Rule{{Regex: `^(.+).dragonfly-local.c3.zone:7000$`, Host: "$group1.myregistry.com", Scheme: "https"}}
	_, log, err := open(t, cfg)
	if err != nil || !strings.Contains(log, "level=WARN") || !strings.Contains(log, "upstreamRules") {
		t.Errorf("%v, log:\n%s", err, log)
	}
	cfg.Server.UpstreamRules[0].Regex = `^(.+)\.dragonfly-local\.c3\.zone:7000$`
	if _, log, err = open(t, cfg); err != nil || log != "" {
		t.Errorf("%v, log:\n%s", err, log)
	}
}

// In the file 0s is none, also where a part takes 0 for its default.
func TestPermissionTimes(t *testing.T) {
	content := bytes.Repeat([]byte("content "), 100_000)
	d := digest.FromBytes(content)
	var heads atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			heads.Add(1)
		}
		if !strings.HasSuffix(r.URL.Path, d.String()) {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	defer s.Close()
	none := digest.FromString("none").String()
	for _, c := range []struct {
		name   string
		change func(p *cacheconfig.Permission)
		ranges int64 // HEADs for three range requests
		whole  int64 // for three whole ones after that
		absent int64 // for three of what is not there
	}{
		{"defaults", func(*cacheconfig.Permission) {}, 1, 3, 1},
		{"none", func(p *cacheconfig.Permission) { p.RangeTTL, p.NegativeTTL = 0, 0 }, 3, 3, 3},
		{"ttl", func(p *cacheconfig.Permission) { p.TTL = cacheconfig.Duration(time.Hour) }, 1, 0, 1},
		{"trusted", func(p *cacheconfig.Permission) { p.Policy = "trusted" }, 0, 0, -1},
	} {
		cfg := cacheconfig.Default()
		cfg.Server.DefaultBackend = cacheconfig.Backend{Host: strings.TrimPrefix(s.URL, "http://"), Scheme: "http"}
		c.change(&cfg.Permission)
		chain, _, err := open(t, cfg)
		if err != nil {
			t.Fatal(err)
		}
		front := httptest.NewServer(chain.Handler)
		ask := func(name, rng string, status int) (asked int64) {
			before := heads.Load()
			for range 3 {
				q, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, front.URL+"/v2/a/b/blobs/"+name, nil)
				if rng != "" {
					q.Header.Set("Range", rng)
				}
				resp, err := http.DefaultClient.Do(q)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != status {
					t.Errorf("%s: %s of %s: %s", c.name, rng, name, resp.Status)
				}
			}
			return heads.Load() - before
		}
		got := [3]int64{ask(d.String(), "bytes=5-10", 206), ask(d.String(), "", 200), ask(none, "", 404)}
		want := [3]int64{c.ranges, c.whole, c.absent}
		if want[2] < 0 {
			want[2] = got[2] // nobody is asked for permission, but there is nothing to serve either
		}
		if got != want {
			t.Errorf("%s: %d HEADs for ranges, whole blobs and what is not there, want %d", c.name, got, want)
		}
		front.Close()
	}
}

// What an operator is told is what happened.
func TestStatAndSnapshot(t *testing.T) {
	cfg := cacheconfig.Default()
	cfg.Server.DefaultBackend = cacheconfig.Backend{Host: "127.0.0.1:1", Scheme: "http"}
	c, _, err := open(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(c.Handler)
	defer front.Close()
	resp, err := http.Get(front.URL + "/v2/a/b/blobs/" + digest.FromString("x").String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadGateway && resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("an upstream that is not there: %s", resp.Status)
	}
	s := c.Snapshot()
	if s.Proxy.Requests != 1 || s.Permit.Unreached != 1 || s.Upstream.Errors != 1 || s.Cache.Blobs != 0 {
		t.Errorf("counted %s", fmt.Sprintf("%+v", s))
	}
}
