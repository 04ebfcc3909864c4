package cachepage_test

import (
	"fmt"
	"testing"

	"github.com/reprise-containers/reprise/cache/proxy"
	"github.com/reprise-containers/reprise/cmd/internal/cachepage"
)

func asked(t *cachepage.Traffic, repository string, n int, outcome proxy.Outcome) {
	for range n {
		t.Observe(proxy.Record{Upstream: "r", Repo: repository, Kind: proxy.KindBlob, Bytes: 10, Outcome: outcome})
	}
}

func TestTraffic(t *testing.T) {
	x := cachepage.NewTraffic()
	asked(x, "a", 3, proxy.OutcomeHit)
	asked(x, "a", 1, proxy.OutcomeMiss)
	asked(x, "b", 5, proxy.OutcomePartial)
	asked(x, "c", 9, proxy.OutcomeDenied) // which gets nothing
	x.Observe(proxy.Record{Kind: proxy.KindBase, Outcome: proxy.OutcomePassed})
	if got, want := fmt.Sprint(x.Top(9)), "[{r b {5 0 50 0}} {r a {4 3 40 30}}]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := fmt.Sprint(x.Kinds()), "map[blobs:{9 3 90 30}]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Those that are asked for often stay in the list, however many others there are.
func TestTrafficIsBounded(t *testing.T) {
	x := cachepage.NewTraffic()
	for i := range 5000 {
		asked(x, fmt.Sprint("once-", i), 1, proxy.OutcomeMiss)
		asked(x, "often", 1, proxy.OutcomeHit)
	}
	if top := x.Top(10_000); len(top) != 1000 || top[0].Repository != "often" || top[0].Requests != 5000 {
		t.Errorf("%d images, first %+v", len(top), top[0])
	}
}
