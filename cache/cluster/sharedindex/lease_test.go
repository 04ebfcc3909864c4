package sharedindex_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
)

func TestLeases(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		a, b := w.replica(t, "a:1"), w.replica(t, "b:1")
		t.Run("one fetches", func(t *testing.T) { oneFetches(t, a, b) })
		t.Run("gaps", func(t *testing.T) { gaps(t, a, b) })
		t.Run("seen failing", func(t *testing.T) { seenFailing(t, a, b) })
		t.Run("ran out", func(t *testing.T) { ranOut(t, w, b) })
		t.Run("origins", func(t *testing.T) { origins(t, a, b) })
		t.Run("many", func(t *testing.T) { many(t, a) })
		t.Run("wrong arguments", func(t *testing.T) { wrongArguments(t, a) })
	})
}

func oneFetches(t *testing.T, a, b *sharedindex.Index) {
	k := sharedindex.Key{Origin: "https://up.example", Digest: fresh()}
	p := locate(t, a, wanted(k, 0, 100))
	if p.Lease == nil || p.Lease.Extent != (sharedindex.Extent{Off: 0, End: 100}) || p.Fetching != nil {
		t.Fatalf("the first one got %+v", p)
	}
	for _, x := range []*sharedindex.Index{a, b} {
		q := locate(t, x, wanted(k, 99, 200))
		if q.Lease != nil || q.Fetching == nil || q.Fetching.Replica != "a:1" || q.Fetching.Lease != *p.Lease {
			t.Fatalf("another one got %+v", q)
		}
	}
	must(t, a.Renew(t.Context(), k, p.Lease.Token))
	wantErr(t, b.Renew(t.Context(), k, p.Lease.Token), sharedindex.ErrFenced)
	wantErr(t, b.Release(t.Context(), k, p.Lease.Token, true), sharedindex.ErrFenced)
	must(t, a.Release(t.Context(), k, p.Lease.Token, true))
	wantErr(t, a.Release(t.Context(), k, p.Lease.Token, true), sharedindex.ErrFenced)
	wantErr(t, a.Renew(t.Context(), k, p.Lease.Token), sharedindex.ErrFenced)

	q := locate(t, b, wanted(k, 0, 100))
	if q.Lease != nil || q.Fetching != nil || !slices.Equal(q.Holders, []string{"a:1"}) {
		t.Fatalf("after the fetch: %+v", q)
	}
	insist := wanted(k, 0, 100)
	insist.Insist = true
	if q = locate(t, b, insist); q.Lease == nil || q.Lease.Token <= p.Lease.Token || len(q.Holders) != 1 {
		t.Fatalf("who insists got %+v after %+v", q.Lease, p.Lease)
	}
	// The holder itself has nobody to ask but who fetches.
	if q = locate(t, a, wanted(k, 0, 1)); q.Fetching == nil || len(q.Holders) != 0 {
		t.Fatalf("the holder got %+v", q)
	}
}

func gaps(t *testing.T, a, b *sharedindex.Index) {
	k := sharedindex.Key{Digest: fresh()}
	must2 := func(p sharedindex.Place, off, end int64) {
		t.Helper()
		if p.Lease == nil || p.Lease.Off != off || p.Lease.End != end {
			t.Fatalf("lease %+v, not from %d to %d", p.Lease, off, end)
		}
	}
	must2(locate(t, a, wanted(k, 100, 200)), 100, 200)
	must2(locate(t, b, wanted(k, 300, 301)), 300, 301)
	must2(locate(t, b, wanted(k, 0, 1<<40)), 0, 100)
	must2(locate(t, a, wanted(k, 200, 1<<40)), 200, 300)
	must2(locate(t, a, wanted(k, 301, 1<<50)), 301, 1<<50)
}

func seenFailing(t *testing.T, a, b *sharedindex.Index) {
	k := sharedindex.Key{Digest: fresh()}
	p := locate(t, a, wanted(k, 0, 100))
	over := wanted(k, 50, 100)
	over.Over = p.Lease.Token
	q := locate(t, b, over)
	if q.Lease == nil || q.Lease.Token <= p.Lease.Token || q.Lease.Off != 50 {
		t.Fatalf("who saw it fail got %+v", q)
	}
	wantErr(t, a.Release(t.Context(), k, p.Lease.Token, true), sharedindex.ErrFenced)
	if q = locate(t, b, wanted(k, 0, 10)); q.Lease == nil || len(q.Holders) != 0 {
		t.Fatalf("what was fenced was written: %+v", q)
	}
	// The token of no lease ends none.
	if q = locate(t, b, over); q.Fetching == nil || q.Fetching.Replica != "b:1" {
		t.Fatalf("its successor is %+v", q)
	}
}

func ranOut(t *testing.T, w world, b *sharedindex.Index) {
	frozen := w.hasty(t, "frozen:1")
	k := sharedindex.Key{Digest: fresh()}
	p := locate(t, frozen, wanted(k, 0, 100))
	var q sharedindex.Place
	eventually(t, func() error {
		if q = locate(t, b, wanted(k, 0, 100)); q.Lease == nil {
			return errors.New("the lease does not run out")
		}
		return nil
	})
	if q.Lease.Token <= p.Lease.Token {
		t.Fatalf("token %d after %d", q.Lease.Token, p.Lease.Token)
	}
	wantErr(t, frozen.Renew(t.Context(), k, p.Lease.Token), sharedindex.ErrFenced)
	wantErr(t, frozen.Release(t.Context(), k, p.Lease.Token, true), sharedindex.ErrFenced)
	// It wrote nothing, and its successor's lease is as it was.
	if r := locate(t, frozen, wanted(k, 0, 1)); r.Fetching == nil || r.Fetching.Lease != *q.Lease {
		t.Fatalf("after the fenced release: %+v", r)
	}
	must(t, b.Release(t.Context(), k, q.Lease.Token, false))
	if r := locate(t, b, wanted(k, 0, 1)); len(r.Holders) != 0 || r.Lease == nil {
		t.Fatalf("after both: %+v", r)
	}
	// A lease that nobody took over is over too.
	k.Digest = fresh()
	p = locate(t, frozen, wanted(k, 0, 100))
	eventually(t, func() error {
		if err := frozen.Renew(t.Context(), k, p.Lease.Token); !errors.Is(err, sharedindex.ErrFenced) {
			return fmt.Errorf("renewing: %v", err)
		}
		return nil
	})
}

// origins: contents of two upstreams under one digest are two, and what is verified
// serves both.
func origins(t *testing.T, a, b *sharedindex.Index) {
	d := fresh()
	one := sharedindex.Key{Origin: "https://one.example", Digest: d}
	two := sharedindex.Key{Origin: "https://two.example", Digest: d}
	p := locate(t, a, wanted(one, 0, 100))
	if q := locate(t, b, wanted(two, 0, 100)); q.Lease == nil {
		t.Fatalf("the other upstream's content: %+v", q)
	}
	must(t, a.Release(t.Context(), one, p.Lease.Token, true))
	other := sharedindex.Key{Origin: "https://three.example", Digest: d}
	if q := locate(t, b, wanted(other, 0, 100)); q.Lease == nil || len(q.Holders) != 0 {
		t.Fatalf("what is not verified serves another upstream: %+v", q)
	}
	must(t, a.Hold(t.Context(), sharedindex.Key{Digest: d}))
	for _, k := range []sharedindex.Key{one, {Digest: d}, {Origin: "https://four.example", Digest: d}} {
		if q := locate(t, b, wanted(k, 0, 100)); q.Lease != nil || !slices.Equal(q.Holders, []string{"a:1"}) {
			t.Fatalf("%q: what is verified: %+v", k.Origin, q)
		}
	}
	must(t, a.Drop(t.Context(), "", sharedindex.Key{Digest: d}))
	if q := locate(t, b, wanted(one, 0, 100)); !slices.Equal(q.Holders, []string{"a:1"}) {
		t.Fatalf("what is not verified was dropped too: %+v", q)
	}
	must(t, b.Drop(t.Context(), "a:1", one))
	if q := locate(t, b, wanted(one, 0, 100)); q.Lease == nil {
		t.Fatalf("after Drop: %+v", q)
	}
}

// many: the leases of one content are bounded. Then there is no lease, and no error.
func many(t *testing.T, a *sharedindex.Index) {
	k := sharedindex.Key{Digest: fresh()}
	granted := 0
	for i := range int64(300) {
		p := locate(t, a, wanted(k, 2*i, 2*i+1))
		if p.Lease != nil {
			granted++
		} else if p.Fetching != nil || len(p.Holders) != 0 || p.Stored != nil {
			t.Fatalf("lease %d: %+v", i, p)
		}
	}
	if granted != 256 {
		t.Fatalf("%d leases were granted", granted)
	}
}

func wrongArguments(t *testing.T, a *sharedindex.Index) {
	d := fresh()
	for _, w := range []sharedindex.Wanted{
		wanted(sharedindex.Key{}, 0, 1),
		wanted(sharedindex.Key{Digest: "sha256:}{"}, 0, 1),
		wanted(sharedindex.Key{Digest: d, Origin: "a b"}, 0, 1),
		wanted(sharedindex.Key{Digest: d}, -1, 1),
		wanted(sharedindex.Key{Digest: d}, 1, 1),
		wanted(sharedindex.Key{Digest: d}, 0, 1<<60),
	} {
		if p, err := a.Locate(t.Context(), w); err == nil {
			t.Errorf("%+v: %+v", w, p)
		}
	}
	k := sharedindex.Key{Digest: d}
	for _, token := range []uint64{0, 1 << 60} {
		if a.Renew(t.Context(), k, token) == nil || a.Release(t.Context(), k, token, true) == nil {
			t.Errorf("token %d was taken", token)
		}
	}
	if a.Hold(t.Context(), k, sharedindex.Key{}) == nil || a.Drop(t.Context(), "", sharedindex.Key{}) == nil {
		t.Error("a key without a digest was taken")
	}
	if s := a.Stats(); !s.Up || s.Errors != 0 {
		t.Errorf("after wrong arguments: %+v", s)
	}
}
