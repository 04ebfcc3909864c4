package sharedindex_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
)

func TestHolders(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		t.Run("order", func(t *testing.T) { holdersInOrder(t, w) })
		t.Run("batch", func(t *testing.T) { holdMany(t, w) })
		t.Run("forgotten", func(t *testing.T) { forgotten(t, w) })
	})
}

// holdersInOrder: those who said so last come first, four at most, and no more than 8
// are remembered.
func holdersInOrder(t *testing.T, w world) {
	k, asking := sharedindex.Key{Digest: fresh()}, w.replica(t, "asking:1")
	admin := w.client(t)
	has := fmt.Sprintf("test:{%s}:has", k.Digest)
	for i := range 12 {
		must(t, w.replica(t, fmt.Sprintf("r%02d:1", i)).Hold(t.Context(), k))
		// So that no two have the same time.
		must(t, admin.HSet(t.Context(), has, fmt.Sprintf("@r%02d:1", i), time.Now().UnixMilli()-1000+int64(i)).Err())
	}
	p := locate(t, asking, wanted(k, 0, 1))
	if want := []string{"r11:1", "r10:1", "r09:1", "r08:1"}; !slices.Equal(p.Holders, want) {
		t.Fatalf("holders %q, not %q", p.Holders, want)
	}
	if n, err := admin.HLen(t.Context(), has).Result(); err != nil || n != 8 {
		t.Fatalf("%d holders are remembered, %v", n, err)
	}
	p = locate(t, w.replica(t, "r10:1"), wanted(k, 0, 1))
	if want := []string{"r11:1", "r09:1", "r08:1", "r07:1"}; !slices.Equal(p.Holders, want) {
		t.Fatalf("holders but the caller %q, not %q", p.Holders, want)
	}
}

// holdMany: many contents, over all nodes, by few round trips, also when Redis does not
// know the script.
func holdMany(t *testing.T, w world) {
	w.empty(t)
	for _, s := range w.servers {
		c := s.Client()
		must(t, c.ScriptFlush(t.Context()).Err())
		c.Close()
	}
	a, b := w.replica(t, "a:1"), w.replica(t, "b:1")
	var keys []sharedindex.Key
	for range 1000 {
		keys = append(keys, sharedindex.Key{Digest: fresh()})
	}
	c := w.replica(t, "c:1")
	must(t, a.Hold(t.Context(), keys...))
	must(t, b.Hold(t.Context(), keys[:500]...))
	must(t, a.Drop(t.Context(), "", keys[250:750]...))
	for i, k := range keys {
		var want []string
		if i < 250 || i >= 750 {
			want = append(want, "a:1")
		}
		if i < 500 {
			want = append(want, "b:1")
		}
		p := locate(t, c, wanted(k, 0, 1))
		slices.Sort(p.Holders)
		if !slices.Equal(p.Holders, want) || (p.Lease == nil) == (want == nil) {
			t.Fatalf("content %d: %+v, not %q", i, p, want)
		}
	}
	must(t, a.Hold(t.Context()))
	if s := a.Stats(); s.Ops["hold"] < 1000 || s.Ops["drop"] != 500 {
		t.Errorf("operations %v", s.Ops)
	}
}

// forgotten: everything has a TTL, and who said it has a content too long ago is no
// holder, also if others keep the key alive.
func forgotten(t *testing.T, w world) {
	w.empty(t)
	a, admin := w.replica(t, "a:1"), w.client(t)
	d := fresh()
	k := sharedindex.Key{Digest: d}
	must(t, a.Hold(t.Context(), k))
	must(t, admin.HSet(t.Context(), fmt.Sprintf("test:{%s}:has", d), "@old:1", time.Now().Add(-8*24*time.Hour).UnixMilli()).Err())
	p := locate(t, w.replica(t, "b:1"), wanted(k, 0, 1))
	if !slices.Equal(p.Holders, []string{"a:1"}) {
		t.Fatalf("holders %q", p.Holders)
	}
	insist := wanted(k, 0, 1)
	insist.Insist = true
	locate(t, a, insist)
	locate(t, a, wanted(sharedindex.Key{Origin: "up", Digest: fresh()}, 0, 1))
	_, _, err := a.Claim(t.Context(), d)
	must(t, err)
	must(t, beat(t.Context(), a, []byte("fine")))
	grant(t, a, ask("alice", "r"), "yes")
	must(t, a.Revoke(t.Context(), ask("bob", "r").Scope))
	keys := 0
	for _, s := range w.servers {
		c := s.Client()
		all, err := c.Keys(t.Context(), "*").Result()
		must(t, err)
		for _, key := range all {
			keys++
			if ttl, err := c.TTL(t.Context(), key).Result(); err != nil || ttl <= 0 {
				t.Errorf("%s has the TTL %v, %v", key, ttl, err)
			}
		}
		c.Close()
	}
	if keys != 8 {
		t.Errorf("%d keys", keys)
	}
}
