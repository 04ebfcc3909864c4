package sharedindex_test

import (
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex/redistest"
)

var (
	evals    = regexp.MustCompile(`cmdstat_eval:calls=(\d+)`)
	refused  = regexp.MustCompile(`errorstat_NOSCRIPT:count=(\d+)`)
	accepted = regexp.MustCompile(`total_connections_received:(\d+)`)
)

// counted returns what a server counted, 0 if it did not say so.
func counted(t *testing.T, s *redistest.Server, section string, what *regexp.Regexp) int {
	t.Helper()
	c := s.Client()
	defer c.Close()
	info, err := c.Info(t.Context(), section).Result()
	must(t, err)
	m := what.FindStringSubmatch(info)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	must(t, err)
	return n
}

// TestScriptIsSentOnce: servers that do not know a script are sent it once for each
// pipeline, and all is done.
func TestScriptIsSentOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		x, admin := w.replica(t, "a:1"), w.client(t)
		for _, c := range []struct{ keys, evals, refused int }{
			{1, 1, 1},
			{20, len(w.servers), 20},
			{800, 3 + len(w.servers), 0}, // batches of 256 for each node
		} {
			for _, s := range w.servers {
				admin := s.Client()
				must(t, admin.ScriptFlush(t.Context()).Err())
				must(t, admin.ConfigResetStat(t.Context()).Err())
				admin.Close()
			}
			var keys []sharedindex.Key
			for range c.keys {
				keys = append(keys, sharedindex.Key{Digest: fresh()})
			}
			must(t, x.Hold(t.Context(), keys...))
			for _, k := range keys {
				if n, err := admin.Exists(t.Context(), "test:{"+k.Digest.String()+"}:has").Result(); err != nil || n != 1 {
					t.Fatalf("of %d: %d, %v", c.keys, n, err)
				}
			}
			sent, no := 0, 0
			for _, s := range w.servers {
				sent += counted(t, s, "commandstats", evals)
				no += counted(t, s, "errorstats", refused)
			}
			if sent == 0 || sent > c.evals || no > c.refused {
				t.Errorf("for %d keys the script was sent %d times, and %d times refused", c.keys, sent, no)
			}
		}
	})
}

// TestConnections: however much is asked at once, and however slow Redis is, a replica
// opens few connections.
func TestConnections(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		x := w.replica(t, "a:1")
		before := make([]int, len(w.servers))
		for i, s := range w.servers {
			before[i] = counted(t, s, "stats", accepted)
			admin := s.Client()
			must(t, admin.Do(t.Context(), "CLIENT", "PAUSE", 500, "ALL").Err())
			admin.Close()
		}
		var g errgroup.Group
		for range 50 * sharedindex.MaxConnections {
			g.Go(func() error { return x.Hold(t.Context(), sharedindex.Key{Digest: fresh()}) }) // a pipeline
			g.Go(func() error { return x.Revoke(t.Context(), ask(fresh().String(), "").Scope) })
		}
		must(t, g.Wait())
		for i, s := range w.servers {
			// One of each is of this test, and one of the cluster's state.
			if n := counted(t, s, "stats", accepted) - before[i]; n > sharedindex.MaxConnections+3 {
				t.Errorf("%d connections were opened", n)
			}
		}
	})
}
