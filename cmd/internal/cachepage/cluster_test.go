package cachepage_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/cluster/tier"
	"github.com/reprise-containers/reprise/cmd/internal/cachechain"
	"github.com/reprise-containers/reprise/cmd/internal/cachepage"
)

// said returns the page of a state.
func said(t *testing.T, s cachepage.State) string {
	t.Helper()
	w := httptest.NewRecorder()
	cachepage.Handler(func(context.Context) cachepage.State { return s }).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// replicated is the state of a replica without others.
func replicated() cachepage.State {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	s := cachepage.State{Now: now, Started: now.Add(-time.Hour)}
	s.Stats.Scanned = true
	s.Stats.Cluster = &cluster.Stats{HasIndex: true, Index: sharedindex.Stats{Up: true}, HasTier: true}
	s.Replicas.Self = cachechain.Replica{Name: "b:7001", Seen: now, Status: cachechain.ReplicaStatus{Version: "own", Requests: 42}}
	return s
}

// What others say of themselves, and what Redis says, is shown and bounded.
func TestOthersAreNotTrusted(t *testing.T) {
	const evil = `<script>alert(1)</script>`
	s := replicated()
	s.Stats.Cluster.Index = sharedindex.Stats{LastError: evil + strings.Repeat("e", 5000), Since: s.Now.Add(-time.Minute), Ops: map[string]uint64{evil: 1}}
	long := cachechain.Replica{Name: "a" + strings.Repeat("n", 5000), Seen: s.Now.Add(-14 * time.Second)}
	long.Status.Version = evil
	s.Replicas.All = []cachechain.Replica{{Name: evil, Seen: s.Now, Err: errors.New(evil)}, long}
	for i := range 500 {
		s.Replicas.All = append(s.Replicas.All, cachechain.Replica{Name: fmt.Sprintf("replica-%03d:7001", i), Seen: s.Now})
	}
	text := said(t, s)
	if strings.Contains(text, "<script") || len(text) > 200_000 || strings.Contains(text, strings.Repeat("e", 300)) || strings.Contains(text, strings.Repeat("n", 300)) {
		t.Errorf("the page has %d bytes:\n%.5000s", len(text), text)
	}
	for _, want := range []string{"What it says of itself makes no sense.", "Redis has been away for 60 s", "and 403 more", "was not heard of for 14 s"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q on the page", want)
		}
	}
}

// The replica whose page it is is as it is now, and is there when nobody knows who else
// is.
func TestOwnRow(t *testing.T) {
	s := replicated()
	old := s.Replicas.Self
	old.Status.Version, old.Seen = "stale", s.Now.Add(-3*time.Second)
	s.Replicas.All = []cachechain.Replica{{Name: "c:7001", Seen: s.Now}, old, {Name: "a:7001", Seen: s.Now}}
	text := said(t, s)
	a, b, c := strings.Index(text, ">a:7001<"), strings.Index(text, ">b:7001<"), strings.Index(text, ">c:7001<")
	if a < 0 || b < a || c < b || strings.Contains(text, "stale") || !strings.Contains(text, ">own<") || strings.Count(text, "this one") != 1 {
		t.Errorf("replicas are at %d, %d, %d in\n%s", a, b, c, text)
	}
	s.Replicas.All, s.Replicas.Err = nil, errors.New("too late")
	if text = said(t, s); !strings.Contains(text, "b:7001") || !strings.Contains(text, "did not say which replicas there are: too late") {
		t.Errorf("without the others:\n%s", text)
	}
}

// Warnings come when something is away, and only then.
func TestClusterWarnings(t *testing.T) {
	for _, c := range []struct {
		change func(*cluster.Stats)
		want   string
	}{
		{func(*cluster.Stats) {}, ""},
		{func(s *cluster.Stats) { s.Index.Up = false }, "this replica works alone"},
		{func(s *cluster.Stats) { s.Index.Up, s.HasIndex = false, false }, ""},
		{func(s *cluster.Stats) { s.Shared.Reading = tier.State{Away: true, Error: "gone"} }, "could not be read for ?. The last error: gone"},
		{func(s *cluster.Stats) { s.Shared.Writing = tier.State{Away: true, Error: "full"} }, "could not be written for ?. The last error: full"},
		{func(s *cluster.Stats) { s.Shared.Writing, s.HasTier = tier.State{Away: true}, false }, ""},
		{func(s *cluster.Stats) { s.Damaged = 3 }, "3 objects of the shared tier were damaged"},
		{func(s *cluster.Stats) { s.Dropped = 4 }, "4 blobs were not written back"},
	} {
		s := replicated()
		c.change(s.Stats.Cluster)
		text := said(t, s)
		if warned := strings.Contains(text, `class="warnings"`); warned != (c.want != "") || !strings.Contains(text, c.want) {
			t.Errorf("want %q in\n%s", c.want, text)
		}
	}
}

// A cache that shares nothing says nothing of it.
func TestWithoutCluster(t *testing.T) {
	s := replicated()
	s.Stats.Cluster, s.Replicas = nil, cachepage.Replicas{}
	if text := said(t, s); strings.Contains(text, "eplica") || strings.Contains(text, "Redis") || strings.Contains(text, "tier") {
		t.Error(text)
	}
}
