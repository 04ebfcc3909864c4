package sharedindex_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
)

func TestStored(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		a, b := w.replica(t, "a:1"), w.replica(t, "b:1")
		t.Run("one stores", func(t *testing.T) { oneStores(t, a, b) })
		t.Run("ran out", func(t *testing.T) { claimRanOut(t, w, b) })
		t.Run("found", func(t *testing.T) { found(t, a, b) })
		t.Run("clock", func(t *testing.T) { clockWentBack(t, w, a) })
		t.Run("emptied", func(t *testing.T) { emptied(t, w, a, b) })
	})
}

func claim(t testing.TB, x *sharedindex.Index, d digest.Digest) uint64 {
	t.Helper()
	token, ok, err := x.Claim(t.Context(), d)
	must(t, err)
	if !ok || token == 0 {
		t.Fatalf("claim %d, %v", token, ok)
	}
	return token
}

func noClaim(t testing.TB, x *sharedindex.Index, d digest.Digest) {
	t.Helper()
	if token, ok, err := x.Claim(t.Context(), d); err != nil || ok || token != 0 {
		t.Fatalf("claim %d, %v, %v", token, ok, err)
	}
}

func oneStores(t *testing.T, a, b *sharedindex.Index) {
	d, ctx := fresh(), t.Context()
	token := claim(t, a, d)
	noClaim(t, a, d)
	noClaim(t, b, d)
	must(t, a.RenewClaim(ctx, d, token))
	wantErr(t, a.RenewClaim(ctx, d, token+1), sharedindex.ErrFenced)
	must(t, a.Unclaim(ctx, d, token))
	wantErr(t, a.Unclaim(ctx, d, token), sharedindex.ErrFenced)
	wantErr(t, a.RenewClaim(ctx, d, token), sharedindex.ErrFenced)

	next := claim(t, b, d)
	if next <= token {
		t.Fatalf("token %d after %d", next, token)
	}
	// A write that comes late does not count.
	wantErr(t, a.Publish(ctx, d, sharedindex.Stored{Generation: token, Size: 5}), sharedindex.ErrFenced)
	if p := locate(t, a, wanted(sharedindex.Key{Digest: d}, 0, 5)); p.Stored != nil {
		t.Fatalf("what was fenced was written: %+v", p)
	}
	want := sharedindex.Stored{Generation: next, Size: 1 << 45}
	must(t, b.Publish(ctx, d, want))
	must(t, b.Publish(ctx, d, want)) // the answer may have been lost
	noClaim(t, a, d)
	wantErr(t, b.RenewClaim(ctx, d, next), sharedindex.ErrFenced)
	for _, origin := range []string{"", "up.example"} {
		p := locate(t, a, wanted(sharedindex.Key{Origin: origin, Digest: d}, 0, 5))
		if p.Stored == nil || *p.Stored != want || p.Lease != nil && origin == "" {
			t.Fatalf("%q: %+v", origin, p)
		}
	}
	wantErr(t, a.Publish(ctx, d, sharedindex.Stored{Generation: token, Size: 5}), sharedindex.ErrFenced)
	must(t, a.Unpublish(ctx, d, token)) // another one
	noClaim(t, a, d)
	must(t, a.Unpublish(ctx, d, next))
	if third := claim(t, a, d); third <= next {
		t.Fatalf("token %d after %d", third, next)
	}
}

func claimRanOut(t *testing.T, w world, b *sharedindex.Index) {
	frozen, d, ctx := w.hasty(t, "frozen:1"), fresh(), t.Context()
	token := claim(t, frozen, d)
	var next uint64
	eventually(t, func() error {
		var ok bool
		var err error
		if next, ok, err = b.Claim(ctx, d); err != nil || !ok {
			return errors.New("the claim does not run out")
		}
		return nil
	})
	late := sharedindex.Stored{Generation: token, Size: 1}
	wantErr(t, frozen.Publish(ctx, d, late), sharedindex.ErrFenced)
	must(t, b.Publish(ctx, d, sharedindex.Stored{Generation: next, Size: 2}))
	wantErr(t, frozen.Publish(ctx, d, late), sharedindex.ErrFenced)
	if p := locate(t, frozen, wanted(sharedindex.Key{Digest: d}, 0, 1)); p.Stored == nil || p.Stored.Generation != next {
		t.Fatalf("stored is %+v, not %d", p.Stored, next)
	}
	// Nobody else was granted one: the object is whole.
	d = fresh()
	token = claim(t, frozen, d)
	eventually(t, func() error {
		if err := frozen.RenewClaim(ctx, d, token); !errors.Is(err, sharedindex.ErrFenced) {
			return errors.New("the claim does not run out")
		}
		return nil
	})
	must(t, frozen.Publish(ctx, d, sharedindex.Stored{Generation: token, Size: 1}))
}

// found: an object that was found in the tier is published without a claim.
func found(t *testing.T, a, b *sharedindex.Index) {
	d, ctx := fresh(), t.Context()
	must(t, a.Publish(ctx, d, sharedindex.Stored{Generation: 7, Size: 0}))
	must(t, b.Publish(ctx, d, sharedindex.Stored{Generation: 9, Size: 1}))
	wantErr(t, a.Publish(ctx, d, sharedindex.Stored{Generation: 8, Size: 1}), sharedindex.ErrFenced)

	// Who has the claim may publish an older one that it has found, and nobody else.
	must(t, a.Unpublish(ctx, d, 9))
	claimed := claim(t, a, d)
	wantErr(t, b.Publish(ctx, d, sharedindex.Stored{Generation: 9, Size: 1}), sharedindex.ErrFenced)
	must(t, a.PublishFound(ctx, d, claimed, sharedindex.Stored{Generation: 9, Size: 1}))
	wantErr(t, a.RenewClaim(ctx, d, claimed), sharedindex.ErrFenced)
	for _, s := range []sharedindex.Stored{{Generation: 0, Size: 1}, {Generation: 1 << 60, Size: 1}, {Generation: 10, Size: -1}, {Generation: 10, Size: 1 << 60}} {
		if a.Publish(ctx, d, s) == nil {
			t.Errorf("%+v was published", s)
		}
	}
}

// clockWentBack: tokens grow also when the last ones are of the future.
func clockWentBack(t *testing.T, w world, a *sharedindex.Index) {
	d, admin := fresh(), w.client(t)
	last := time.Now().Add(time.Hour).UnixMicro()
	for _, what := range []string{"lease", "claim"} {
		must(t, admin.HSet(t.Context(), fmt.Sprintf("test:{%s}:%s", d, what), "last", last).Err())
	}
	if token := claim(t, a, d); token != uint64(last+1) {
		t.Errorf("claim %d after %d", token, last)
	}
	for i := range int64(2) {
		p := locate(t, a, wanted(sharedindex.Key{Digest: d}, i, i+1))
		if p.Lease == nil || p.Lease.Token != uint64(last+1+i) {
			t.Errorf("lease %+v after %d", p.Lease, last+i)
		}
	}
}

// emptied: tokens of claims and leases grow also when Redis lost all.
func emptied(t *testing.T, w world, a, b *sharedindex.Index) {
	d := fresh()
	k := sharedindex.Key{Digest: d}
	for range 5 {
		token, lease := claim(t, a, d), locate(t, a, wanted(k, 0, 1)).Lease.Token
		w.empty(t)
		if next := claim(t, b, d); next <= token {
			t.Fatalf("claim %d after %d", next, token)
		}
		if next := locate(t, b, wanted(k, 0, 1)).Lease.Token; next <= lease {
			t.Fatalf("lease %d after %d", next, lease)
		}
		wantErr(t, a.Publish(t.Context(), d, sharedindex.Stored{Generation: token, Size: 1}), sharedindex.ErrFenced)
		wantErr(t, a.Release(t.Context(), k, lease, true), sharedindex.ErrFenced)
		w.empty(t)
	}
}
