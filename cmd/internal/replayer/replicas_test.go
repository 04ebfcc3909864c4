package replayer_test

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/replayconfig"
)

// herd is a trace of one blob that each of some clients asks for in the same second, and
// an hour later again.
func herd(clients int) string {
	var b strings.Builder
	for i := range 2 * clients {
		at := time.Date(2026, 3, 1, 12+i/clients, 0, 0, i%clients*1e6, time.UTC)
		fmt.Fprintf(&b, `{"http.request.method":"GET","http.request.uri":"v2/a/blobs/x","http.request.remoteaddr":"%d","http.response.written":50000000,"http.response.status":200,"timestamp":"%s"}`+"\n",
			i%clients, at.Format("2006-01-02T15:04:05.000Z"))
	}
	return b.String()
}

// A cluster is simulated as it is configured, while the trace is read and afterwards.
func TestReplicas(t *testing.T) {
	none := func(*replayconfig.SimulatedCluster) {}
	for _, c := range []struct {
		name string
		set  func(*replayconfig.SimulatedCluster)
		want map[string]string // of sharing
	}{
		{"as it is", none, map[string]string{"followed": "9", "upstream": "1", "joined": "0", "hits": "10", "redis_locate": "10", "redis_hold": "10", "l2_puts": "0"}},
		{"l2", func(c *replayconfig.SimulatedCluster) { c.Tier = "1GB" }, map[string]string{"upstream": "1", "l2_puts": "1", "redis_claim": "19", "redis_look": "18", "redis_publish": "1"}},
		{"no peers", func(c *replayconfig.SimulatedCluster) { c.Peers = false }, map[string]string{"upstream": "10", "followed": "0", "redis_hold": "0"}},
		{"no Redis", func(c *replayconfig.SimulatedCluster) { c.Redis, c.Tier = false, "1GB" }, map[string]string{"upstream": "10", "redis_locate": "0", "l2_lists": "20"}},
		{"slow", func(c *replayconfig.SimulatedCluster) { c.Rate = 0.001 }, map[string]string{"followed": "0", "peers": "9", "upstream": "1"}},
		{"renewed", func(c *replayconfig.SimulatedCluster) { c.Upstream.Bandwidth = 5e6 }, map[string]string{"redis_renew": "3", "redis_release": "1"}},
		{"permissions", func(c *replayconfig.SimulatedCluster) { c.Permissions = replayconfig.Duration(2 * time.Hour) },
			map[string]string{"permissions_known": "10", "permissions_checked": "10", "redis_granted": "10", "redis_grant": "10"}},
	} {
		for _, size := range []string{"100%", "1GB"} {
			path := filepath.Join(t.TempDir(), "cluster.csv")
			out, err := simulated(t, herd(10), func(cfg *replayconfig.Config) {
				s := &cfg.Simulate
				s.Policies, s.Sizes = []string{}, []string{}
				s.Cluster.Replicas, s.Cluster.Spread, s.Cluster.L1, s.Cluster.CSV = []int{1, 10}, "round-robin", size, path
				c.set(&s.Cluster)
			})
			if err != nil || !strings.Contains(out, "shared") {
				t.Errorf("%s: %v\n%s", c.name, err, out)
				continue
			}
			got := last(t, path)
			for key, want := range c.want {
				if got[key] != want {
					t.Errorf("%s with %s: %s is %q, want %q\n%s", c.name, size, key, got[key], want, out)
				}
			}
		}
	}
}

// last returns the last row of a table, by column.
func last(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil || len(rows) != 5 {
		t.Fatalf("%d rows: %v", len(rows), err)
	}
	out := map[string]string{}
	for i, name := range rows[0] {
		out[name] = rows[len(rows)-1][i]
	}
	return out
}

// A size that makes no sense is an error that names its key.
func TestReplicasErrors(t *testing.T) {
	for key, set := range map[string]func(*replayconfig.SimulatedCluster){
		"simulate.cluster.l1":   func(c *replayconfig.SimulatedCluster) { c.L1 = "much" },
		"simulate.cluster.tier": func(c *replayconfig.SimulatedCluster) { c.Tier = "0%" },
	} {
		_, err := simulated(t, herd(2), func(cfg *replayconfig.Config) {
			cfg.Simulate.Cluster.Replicas = []int{2}
			set(&cfg.Simulate.Cluster)
		})
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
}
