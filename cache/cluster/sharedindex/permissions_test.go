package sharedindex_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

func TestPermissions(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		for name, f := range map[string]func(*testing.T, world){
			"scoped": scoped, "at the same time": sameTime, "revoked": revoked, "revoked before": revokedBefore,
			"lost": epochLost, "late": late, "only asked": onlyAsked, "planted": planted, "ttl": permissionEnds,
		} {
			t.Run(name, func(t *testing.T) {
				w.empty(t)
				f(t, w)
			})
		}
	})
}

// ask is a permission to read a repository with a credential.
func ask(credential, repository string) permit.Name {
	return permit.Name{Scope: sha256.Sum256([]byte(credential)), Item: sha256.Sum256([]byte(credential + " " + repository))}
}

func asked(t testing.TB, x *sharedindex.Index, n permit.Name) permit.Grant {
	t.Helper()
	g, err := x.Granted(t.Context(), n)
	must(t, err)
	if g.Epoch == 0 {
		t.Fatalf("no epoch: %+v", g)
	}
	return g
}

// grants grants under an epoch, which is or is not good for it.
func grants(t testing.TB, x *sharedindex.Index, n permit.Name, epoch uint64, want bool) {
	t.Helper()
	kept, err := x.Grant(t.Context(), n, epoch, []byte("yes"), time.Hour)
	must(t, err)
	if kept != want {
		t.Fatalf("granted under the epoch %d: %v", epoch, kept)
	}
}

func grant(t testing.TB, x *sharedindex.Index, n permit.Name, value string) {
	t.Helper()
	kept, err := x.Grant(t.Context(), n, asked(t, x, n).Epoch, []byte(value), time.Hour)
	must(t, err)
	if !kept {
		t.Fatal("it is not granted")
	}
}

// scoped: what one replica was told serves another one for the same credential and item,
// and no other.
func scoped(t *testing.T, w world) {
	a, b := w.replica(t, "a:1"), w.replica(t, "b:1")
	n := ask("alice", "team/private")
	if g := asked(t, b, n); g.Value != nil {
		t.Fatalf("before: %+v", g)
	}
	grant(t, a, n, "y\x00s ")
	if g := asked(t, b, n); string(g.Value) != "y\x00s " || g.Left <= 0 || g.Left > time.Hour {
		t.Fatalf("on another replica: %+v", g)
	}
	bob := ask("bob", "team/private")
	for _, other := range []permit.Name{bob, ask("alice", "team"), {Scope: n.Scope, Item: bob.Item}, {Scope: bob.Scope, Item: n.Item}} {
		if g := asked(t, b, other); g.Value != nil {
			t.Errorf("%x serves %x", n, other)
		}
	}
	for _, wrong := range []struct {
		size int
		ttl  time.Duration
	}{{sharedindex.MaxValue + 1, time.Hour}, {0, time.Hour}, {1, 0}} {
		if _, err := a.Grant(t.Context(), n, asked(t, a, n).Epoch, make([]byte, wrong.size), wrong.ttl); err == nil {
			t.Errorf("%+v was granted", wrong)
		}
	}
}

// sameTime: of a scope that has no epoch yet, all that was asked at the same time is kept.
func sameTime(t *testing.T, w world) {
	a, b := w.replica(t, "a:1"), w.replica(t, "b:1")
	// Those who ask before and after a period ends get two epochs: once.
	for try := 0; ; try++ {
		who := fmt.Sprint("alice", try)
		one, two := asked(t, a, ask(who, "one")), asked(t, b, ask(who, "two"))
		if one.Epoch != two.Epoch && try == 0 {
			continue
		}
		grants(t, b, ask(who, "two"), two.Epoch, true)
		grants(t, a, ask(who, "one"), one.Epoch, true)
		for _, repository := range []string{"one", "two"} {
			if g := asked(t, a, ask(who, repository)); string(g.Value) != "yes" || g.Epoch != one.Epoch {
				t.Fatalf("%s: %+v", repository, g)
			}
		}
		return
	}
}

// revoked: a revocation voids what was granted, and what an upstream that was asked
// before says after it.
func revoked(t *testing.T, w world) {
	a, b := w.replica(t, "a:1"), w.replica(t, "b:1")
	n, other := ask("carol", "r"), ask("dave", "r")
	grant(t, a, n, "yes")
	grant(t, a, other, "yes")
	before := asked(t, a, n)
	must(t, b.Revoke(t.Context(), n.Scope))
	after := asked(t, a, n)
	if after.Value != nil || after.Epoch <= before.Epoch {
		t.Fatalf("after the revocation: %+v, before %+v", after, before)
	}
	grants(t, a, n, before.Epoch, false)
	if g := asked(t, b, n); g.Value != nil {
		t.Fatalf("a decision that came late: %+v", g)
	}
	if g := asked(t, b, other); g.Value == nil {
		t.Fatal("another scope was revoked too")
	}
	grant(t, a, n, "again")
	if g := asked(t, b, n); string(g.Value) != "again" {
		t.Fatalf("granted again: %+v", g)
	}
}

// revokedBefore: so it is if the scope had no epoch when the upstream was asked, and each
// revocation has a later one.
func revokedBefore(t *testing.T, w world) {
	a, b := w.replica(t, "a:1"), w.replica(t, "b:1")
	admin := w.client(t)
	for i := range 100 {
		n := ask("carol", fmt.Sprint(i))
		n.Scope[0] ^= byte(i)
		before := asked(t, a, n)
		must(t, b.Revoke(t.Context(), n.Scope))
		grants(t, a, n, before.Epoch, false)
		after := asked(t, a, n)
		must(t, b.Revoke(t.Context(), n.Scope))
		last := asked(t, a, n)
		if before.Epoch >= after.Epoch || after.Epoch >= last.Epoch || last.Value != nil {
			t.Fatalf("epochs %d, %d, %d", before.Epoch, after.Epoch, last.Epoch)
		}
		grants(t, a, n, after.Epoch, false)
		ttl, err := admin.PTTL(t.Context(), a.PermissionKeys(n)[0]).Result()
		must(t, err)
		if ttl <= 0 || ttl > sharedindex.KeptRevocation {
			t.Fatalf("a revocation is kept for %s", ttl)
		}
		grants(t, a, n, last.Epoch, true)
	}
}

// epochLost: when Redis lost a scope's epoch, nothing of before is found, even if Redis
// still has it.
func epochLost(t *testing.T, w world) {
	a, admin := w.replica(t, "a:1"), w.client(t)
	n, other := ask("erin", "r"), ask("erin", "other")
	must(t, a.Revoke(t.Context(), n.Scope))
	grant(t, a, n, "yes")
	before := asked(t, a, n)
	// An earlier one: what a time from before is.
	must(t, admin.Set(t.Context(), a.PermissionKeys(n)[0], before.Epoch-1, time.Hour).Err())
	if g := asked(t, a, n); g.Value != nil {
		t.Fatalf("under another epoch: %+v", g)
	}
	must(t, admin.Del(t.Context(), a.PermissionKeys(n)[0]).Err())
	g := asked(t, a, other)
	if h := asked(t, a, n); h.Value != nil {
		t.Fatalf("after the loss: %+v", h)
	}
	grants(t, a, other, g.Epoch, true)
	if h := asked(t, a, n); h.Value != nil {
		t.Fatalf("after the loss, and a new epoch: %+v", h)
	}
}

// late: where the scope has no epoch, none begins that is older than a decision may take,
// because a revocation may have been forgotten; nor one that is to come.
func late(t *testing.T, w world) {
	a, admin := w.replica(t, "a:1"), w.client(t)
	if sharedindex.KeptRevocation < 2*sharedindex.MaxDecision {
		t.Fatal("revocations are forgotten too soon")
	}
	n := ask("grace", "r")
	epoch := asked(t, a, n).Epoch
	old := uint64(sharedindex.MaxDecision.Microseconds())
	for _, e := range []uint64{0, 1, epoch - old, epoch + old, 1<<53 - 1, 1 << 53, 1<<64 - 1} {
		grants(t, a, n, e, false)
	}
	if g := asked(t, a, n); g.Value != nil {
		t.Fatalf("%+v", g)
	}
	grants(t, a, n, epoch, true)
	// The epoch is kept for longer than what was granted under it.
	keys := a.PermissionKeys(n)
	of, err := admin.PTTL(t.Context(), keys[0]).Result()
	must(t, err)
	item, err := admin.PTTL(t.Context(), keys[1]).Result()
	must(t, err)
	if of < item+sharedindex.MaxDecision/2 {
		t.Errorf("the epoch is kept for %s, the permission for %s", of, item)
	}
}

// onlyAsked: to ask writes nothing.
func onlyAsked(t *testing.T, w world) {
	a := w.replica(t, "a:1")
	for i := range 100 {
		asked(t, a, ask(fmt.Sprint(i), "r"))
	}
	for _, s := range w.servers {
		c := s.Client()
		defer c.Close()
		if n, err := c.DBSize(t.Context()).Result(); err != nil || n != 0 {
			t.Errorf("%d keys, %v", n, err)
		}
	}
}

// planted: what is in Redis and was not granted under the present epoch is none, and no
// more of it is read than can be a value.
func planted(t *testing.T, w world) {
	a, admin := w.replica(t, "a:1"), w.client(t)
	n := ask("mallory", "r")
	grant(t, a, n, "yes")
	key := a.PermissionKeys(n)[1]
	good, err := admin.Get(t.Context(), key).Bytes()
	must(t, err)
	prefix := bytes.TrimSuffix(good, []byte("yes"))
	for _, value := range [][]byte{
		nil, []byte("yes"), prefix, append([]byte{'1'}, good...), good[1:], good[:10],
		append(bytes.Clone(prefix), make([]byte, sharedindex.MaxValue+1)...), bytes.Repeat([]byte("x"), 1<<16),
	} {
		must(t, admin.Set(t.Context(), key, value, time.Hour).Err())
		if g := asked(t, a, n); g.Value != nil {
			t.Errorf("%.40q counts: %.40q", value, g.Value)
		}
	}
}

func permissionEnds(t *testing.T, w world) {
	a := w.replica(t, "a:1")
	n := ask("grace", "r")
	_, err := a.Grant(t.Context(), n, asked(t, a, n).Epoch, []byte("yes"), time.Millisecond)
	must(t, err)
	eventually(t, func() error {
		if asked(t, a, n).Value != nil {
			return errors.New("the permission does not end")
		}
		return nil
	})
}
