package contrib_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/reprise-containers/reprise/cache/cluster"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/proxy"
	"github.com/reprise-containers/reprise/cmd/internal/cacheconfig"
	"github.com/reprise-containers/reprise/cmd/internal/metrics"
	"github.com/reprise-containers/reprise/remote/upstream"
)

const cacheDir = "registry-cache/"

func TestRegistryCacheConfigIsTheDefault(t *testing.T) {
	want, err := cacheconfig.Default().Text()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(dir+cacheDir+"config.yaml", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := string(read(t, cacheDir+"config.yaml")); got != want {
		t.Errorf("config.yaml is not what registry-cache config prints (go test -update):\n%s", got)
	}
}

// exported are the metrics of a registry cache that has had one request of each kind.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	m := metrics.NewRegistryCache()
	m.Export(func() metrics.CacheSnapshot {
		var s metrics.CacheSnapshot
		s.GC.Last = time.Unix(1, 0)
		s.Cluster = &cluster.Stats{HasIndex: true, HasTier: true, Index: sharedindex.Stats{Ops: map[string]uint64{"locate": 1}}}
		s.Upstream.Hosts = []upstream.HostStats{{Host: "h", BackoffUntil: time.Unix(1, 0)}}
		return s
	})
	m.Observe(proxy.Record{Kind: proxy.KindBlob, Outcome: proxy.OutcomeHit, Status: 200, Aborted: true})
	m.ObserveUpstream(upstream.Observation{Host: "h", Method: "HEAD", Status: 200})
	w := httptest.NewRecorder()
	m.Handler(func() bool { return true }).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	names := map[string]bool{}
	for _, f := range regexp.MustCompile(`(?m)^([a-z_]+)`).FindAllString(w.Body.String(), -1) {
		names[f] = true
	}
	return names
}

// Each metric in the dashboard exists, and each that exists is in the dashboard.
func TestDashboardShowsTheMetrics(t *testing.T) {
	text := read(t, cacheDir+"dashboard.json")
	var doc struct {
		Panels []struct {
			Title   string
			Type    string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	have := exported(t)
	shown := map[string]bool{}
	metric := regexp.MustCompile(`\b(reprise_|process_|go_)[a-z_]+`)
	for _, p := range doc.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			found := metric.FindAllString(target.Expr, -1)
			if len(found) == 0 {
				t.Errorf("panel %q: no metric in %s", p.Title, target.Expr)
			}
			for _, name := range found {
				shown[name] = true
				if !have[name] {
					t.Errorf("panel %q: there is no metric %s", p.Title, name)
				}
			}
			if strings.Count(target.Expr, "(") != strings.Count(target.Expr, ")") {
				t.Errorf("panel %q: %s", p.Title, target.Expr)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		base := strings.TrimSuffix(strings.TrimSuffix(name, "_sum"), "_count")
		if strings.HasPrefix(name, "reprise_") && !shown[name] && !shown[base+"_bucket"] {
			t.Errorf("metric %s is in no panel", name)
		}
	}
}

func TestClientsReadTheirSnippets(t *testing.T) {
	var hosts struct {
		Host map[string]struct {
			Capabilities []string `toml:"capabilities"`
		} `toml:"host"`
	}
	d := toml.NewDecoder(bytes.NewReader(read(t, cacheDir+"hosts.toml"))).DisallowUnknownFields()
	if err := d.Decode(&hosts); err != nil {
		t.Fatal(err)
	}
	url := "http://" + cacheconfig.Default().Server.Address
	if _, ok := hosts.Host[url]; !ok || len(hosts.Host) != 1 {
		t.Errorf("hosts.toml names %v, want %s", hosts.Host, url)
	}
	var docker struct {
		Mirrors []string `json:"registry-mirrors"`
	}
	j := json.NewDecoder(bytes.NewReader(read(t, cacheDir+"daemon.json")))
	j.DisallowUnknownFields()
	if err := j.Decode(&docker); err != nil || len(docker.Mirrors) != 1 || docker.Mirrors[0] != url {
		t.Errorf("daemon.json names %v, %v, want %s", docker.Mirrors, err, url)
	}
}

func TestSystemdAcceptsTheRegistryCachesUnit(t *testing.T) {
	alone := read(t, cacheDir+"registry-cache.service")
	lines := regexp.MustCompile(`(?m)^#cluster(-nfs)? `)
	if n := len(lines.FindAll(alone, -1)); n < 6 {
		t.Errorf("%d lines are for a cluster", n)
	}
	for _, text := range [][]byte{alone, lines.ReplaceAll(alone, nil)} {
		analyzeUnit(t, text, "registry-cache.service", "ExecStart=/usr/local/bin/registry-cache ")
	}
}
