package sharedindex_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
)

func TestPermissions(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		t.Run("scoped", func(t *testing.T) { scoped(t, w) })
		t.Run("revoked", func(t *testing.T) { revoked(t, w) })
		t.Run("lost", func(t *testing.T) { epochLost(t, w) })
		t.Run("planted", func(t *testing.T) { planted(t, w) })
		t.Run("ttl", func(t *testing.T) { permissionEnds(t, w) })
	})
}

// ask is a permission to read a repository of an upstream with a credential.
func ask(x *sharedindex.Index, credential, repository string) sharedindex.Permission {
	return sharedindex.Permission{
		Scope: x.Identify("scope", credential, "up.example", repository),
		Item:  x.Identify("item", credential, "up.example", repository, "sha256:abc"),
	}
}

func asked(t testing.TB, x *sharedindex.Index, p sharedindex.Permission) sharedindex.Grant {
	t.Helper()
	g, err := x.Granted(t.Context(), p)
	must(t, err)
	if g.Epoch == 0 {
		t.Fatalf("no epoch: %+v", g)
	}
	return g
}

func grant(t testing.TB, x *sharedindex.Index, p sharedindex.Permission, value string) {
	t.Helper()
	must(t, x.Grant(t.Context(), p, asked(t, x, p).Epoch, []byte(value), time.Hour))
}

// scoped: what one replica was told serves another one for the same credential, and no
// other credential, repository or item; and Redis has none of their names.
func scoped(t *testing.T, w world) {
	a, b := w.replica(t, "a:1"), w.replica(t, "b:1")
	p := ask(a, "alice:password", "team/private")
	if g := asked(t, b, p); g.Found {
		t.Fatalf("before: %+v", g)
	}
	grant(t, a, p, "yes")
	if g := asked(t, b, p); !g.Found || string(g.Value) != "yes" {
		t.Fatalf("on another replica: %+v", g)
	}
	for _, other := range []sharedindex.Permission{
		ask(b, "bob:password", "team/private"),
		ask(b, "alice:password", "team/private2"),
		ask(b, "", "team/private"),
		{Scope: p.Scope, Item: ask(b, "bob:password", "team/private").Item},
		{Scope: ask(b, "bob:password", "team/private").Scope, Item: p.Item},
	} {
		if g := asked(t, b, other); g.Found {
			t.Errorf("%x serves %x", p, other)
		}
	}
	c := w.config("c:1")
	c.Secret = bytes.Repeat([]byte("x"), 32)
	stranger := open(t, c)
	if ask(stranger, "alice:password", "team/private") == p {
		t.Error("names do not depend on the secret")
	}
	if g := asked(t, stranger, p); g.Found {
		t.Error("a value counts under another secret")
	}
	if a.Identify("ab", "c") == a.Identify("a", "bc") || a.Identify("a", "") == a.Identify("a") {
		t.Error("two lists of parts have one name")
	}
	for _, s := range w.servers {
		cl := s.Client()
		all, err := cl.Keys(t.Context(), "*").Result()
		must(t, err)
		cl.Close()
		for _, key := range all {
			if strings.Contains(key, "alice") || strings.Contains(key, "team") {
				t.Errorf("Redis has the key %q", key)
			}
		}
	}
}

// revoked: a revocation voids what was granted, and what an upstream that was asked
// before says after it.
func revoked(t *testing.T, w world) {
	a, b := w.replica(t, "a:1"), w.replica(t, "b:1")
	p, other := ask(a, "carol:x", "r"), ask(a, "dave:x", "r")
	grant(t, a, p, "yes")
	grant(t, a, other, "yes")
	before := asked(t, a, p)
	must(t, b.Revoke(t.Context(), p.Scope))
	after := asked(t, a, p)
	if after.Found || after.Epoch <= before.Epoch {
		t.Fatalf("after the revocation: %+v, before %+v", after, before)
	}
	wantErr(t, a.Grant(t.Context(), p, before.Epoch, []byte("yes"), time.Hour), sharedindex.ErrFenced)
	if g := asked(t, b, p); g.Found {
		t.Fatalf("a decision that came late: %+v", g)
	}
	if g := asked(t, b, other); !g.Found {
		t.Fatal("another scope was revoked too")
	}
	grant(t, a, p, "again")
	if g := asked(t, b, p); !g.Found || string(g.Value) != "again" {
		t.Fatalf("granted again: %+v", g)
	}
	if a.Grant(t.Context(), p, 1, make([]byte, sharedindex.MaxValue+1), time.Hour) == nil ||
		a.Grant(t.Context(), p, 1, nil, 0) == nil {
		t.Error("a value that is too long, or has no TTL, was granted")
	}
}

// epochLost: when Redis lost a scope's epoch, no decision of before counts, even if
// Redis still has it.
func epochLost(t *testing.T, w world) {
	a, admin := w.replica(t, "a:1"), w.client(t)
	p := ask(a, "erin:x", "r")
	grant(t, a, p, "yes")
	before := asked(t, a, p)
	must(t, admin.Del(t.Context(), a.PermissionKeys(p)[0]).Err())
	wantErr(t, a.Grant(t.Context(), p, before.Epoch, []byte("yes"), time.Hour), sharedindex.ErrFenced)
	if g := asked(t, a, p); g.Found || g.Epoch <= before.Epoch {
		t.Fatalf("after the loss: %+v, before %+v", g, before)
	}
	wantErr(t, a.Grant(t.Context(), p, before.Epoch, []byte("yes"), time.Hour), sharedindex.ErrFenced)
}

// planted: a value that was copied from another permission, changed, cut or made up is
// none.
func planted(t *testing.T, w world) {
	a, admin := w.replica(t, "a:1"), w.client(t)
	p, mallory := ask(a, "frank:x", "r"), ask(a, "mallory:x", "r")
	grant(t, a, p, "yes")
	grant(t, a, mallory, "no")
	// Of the same scope, or as the same item of another one.
	sameScope := sharedindex.Permission{Scope: p.Scope, Item: mallory.Item}
	sameItem := sharedindex.Permission{Scope: mallory.Scope, Item: p.Item}
	epoch := asked(t, a, p).Epoch
	theirs, mine := a.PermissionKeys(p), a.PermissionKeys(mallory)
	good, err := admin.Get(t.Context(), theirs[1]).Bytes()
	must(t, err)
	// The epoch of the permission that was copied, too.
	must(t, admin.Set(t.Context(), mine[0], epoch, time.Hour).Err())
	for _, q := range []sharedindex.Permission{sameScope, sameItem} {
		must(t, admin.Set(t.Context(), a.PermissionKeys(q)[1], good, time.Hour).Err())
		if g := asked(t, a, q); g.Found || g.Epoch != epoch {
			t.Errorf("a copied value counts: %+v", g)
		}
	}
	for _, value := range [][]byte{
		good, good[:len(good)-1], append(bytes.Clone(good), 'x'), good[:10], nil,
		bytes.Repeat([]byte("x"), 1<<16), []byte("yes"),
	} {
		must(t, admin.Set(t.Context(), mine[1], value, time.Hour).Err())
		if g := asked(t, a, mallory); g.Found {
			t.Errorf("%.40q counts: %+v", value, g)
		}
	}
}

func permissionEnds(t *testing.T, w world) {
	a := w.replica(t, "a:1")
	p := ask(a, "grace:x", "r")
	must(t, a.Grant(t.Context(), p, asked(t, a, p).Epoch, nil, time.Millisecond))
	eventually(t, func() error {
		if asked(t, a, p).Found {
			return errors.New("the permission does not end")
		}
		return nil
	})
}
