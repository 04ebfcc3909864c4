package sharedindex_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

// TestWrongTypes: where Redis holds something of another type, calls have an error that
// says so; Redis is not away for that.
func TestWrongTypes(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		x, admin := w.replica(t, "a:1"), w.client(t)
		d := fresh()
		k := sharedindex.Key{Digest: d, Origin: "up"}
		p := permit.Name{}
		for _, key := range append(x.PermissionKeys(p),
			fmt.Sprintf("test:{%s}:lease", d), fmt.Sprintf("test:{%s}:lease:up", d), fmt.Sprintf("test:{%s}:claim", d),
			fmt.Sprintf("test:{%s}:has", d), fmt.Sprintf("test:{%s}:has:up", d), "test:{replicas}:beats", stream) {
			must(t, admin.SAdd(t.Context(), key, "x").Err())
		}
		wrong := map[string]error{
			"Renew":      x.Renew(t.Context(), k, 1),
			"Release":    x.Release(t.Context(), k, 1, true),
			"Hold":       x.Hold(t.Context(), k),
			"Drop":       x.Drop(t.Context(), "", k),
			"RenewClaim": x.RenewClaim(t.Context(), d, 1),
			"Unclaim":    x.Unclaim(t.Context(), d, 1),
			"Publish":    x.Publish(t.Context(), d, sharedindex.Stored{Generation: 1}),
			"Unpublish":  x.Unpublish(t.Context(), d, 1),
			"Announce":   x.Announce(t.Context(), nil),
			"Beat":       beat(t.Context(), x, nil),
			"Revoke":     x.Revoke(t.Context(), p.Scope),
		}
		_, wrong["Locate"] = x.Locate(t.Context(), wanted(k, 0, 1))
		_, _, wrong["Claim"] = x.Claim(t.Context(), d)
		_, wrong["Replicas"] = x.Replicas(t.Context())
		_, wrong["Grant"] = x.Grant(t.Context(), p, 1, []byte("x"), 1e9)
		_, wrong["Tail"] = x.Tail(t.Context())
		_, wrong["Granted"] = x.Granted(t.Context(), p)
		for name, err := range wrong {
			if !errors.Is(err, sharedindex.ErrWrong) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if s := x.Stats(); !s.Up || s.Errors != uint64(len(wrong)) || s.LastError == "" {
			t.Errorf("after wrong values: %+v", s)
		}
	})
}

// TestWrongValues: values that make no sense count as none, and tokens grow.
func TestWrongValues(t *testing.T) {
	w := standalone(t)
	x, admin, ctx := w.replica(t, "a:1"), w.client(t), t.Context()
	values := []string{"", "x", "-1", "1e9", "0x10", "99999999999999999999", "9007199254740991", "1 2", "1 2 3", "99999999999999999 0 9 b:1",
		"9007199254740000 0 99999999999999999999 b:1", "9007199254740000 0 1 b:1 c:1", "\x00\xff", "nan", "inf", "9007199254740000 0 1 b:1", "9007199254740000"}
	for _, v := range values {
		k := sharedindex.Key{Digest: fresh()}
		key := func(what string) string { return fmt.Sprintf("test:{%s}:%s", k.Digest, what) }
		must(t, admin.HSet(ctx, key("lease"), "last", v, "123", v, v, v).Err())
		must(t, admin.HSet(ctx, key("has"), "stored", v, "@b:1", v, "@", v, v, v).Err())
		must(t, admin.HSet(ctx, key("claim"), "last", v, "ends", v).Err())
		p, err := x.Locate(ctx, wanted(k, 0, 10))
		must(t, err)
		if v == "1 2" {
			if p.Stored == nil { // it is right there
				t.Errorf("%q: %+v", v, p)
			}
			continue
		}
		if p.Lease == nil || p.Lease.End != 10 || p.Lease.Token < 1e15 || len(p.Holders) != 0 || p.Stored != nil {
			t.Errorf("%q: %+v", v, p)
		}
		must(t, x.Renew(ctx, k, p.Lease.Token))
		must(t, x.Release(ctx, k, p.Lease.Token, true))
		token := claim(t, x, k.Digest)
		must(t, x.Publish(ctx, k.Digest, sharedindex.Stored{Generation: token, Size: 1}))

		must(t, admin.HSet(ctx, "test:{replicas}:beats", "b:1", v).Err())
		if all, err := x.Replicas(ctx); err == nil && len(all) != 0 {
			t.Errorf("%q: replicas %+v", v, all)
		}
		must(t, beat(ctx, x, nil)) // that removes it
		if all, err := x.Replicas(ctx); err != nil || len(all) != 1 {
			t.Errorf("%q: replicas %+v, %v", v, all, err)
		}
		must(t, admin.Del(ctx, "test:{replicas}:beats").Err())

		q := ask(v, "r")
		must(t, admin.Set(ctx, x.PermissionKeys(q)[0], v, 1e10).Err())
		must(t, admin.Set(ctx, x.PermissionKeys(q)[1], v, 1e10).Err())
		if g, err := x.Granted(ctx, q); err != nil || g.Value != nil || g.Epoch == 0 {
			t.Errorf("%q: %+v, %v", v, g, err)
		}
	}
}

func TestConfig(t *testing.T) {
	good := world{addrs: []string{"127.0.0.1:1"}}.config("a:1")
	must(t, good.Validate())
	for name, spoil := range map[string]func(*sharedindex.Config){
		"no address":       func(c *sharedindex.Config) { c.Addrs = nil },
		"address":          func(c *sharedindex.Config) { c.Addrs = []string{"redis"} },
		"database":         func(c *sharedindex.Config) { c.Database = -1 },
		"cluster database": func(c *sharedindex.Config) { c.Cluster, c.Database = true, 1 },
		"prefix":           func(c *sharedindex.Config) { c.Prefix = "a{b" },
		"no replica":       func(c *sharedindex.Config) { c.Replica = "" },
		"replica":          func(c *sharedindex.Config) { c.Replica = "a b" },
		"long lease":       func(c *sharedindex.Config) { c.LeaseTTL = 25 * time.Hour },
		"lease":            func(c *sharedindex.Config) { c.LeaseTTL = 1 },
		"remember":         func(c *sharedindex.Config) { c.Remember = 1 },
		"beat":             func(c *sharedindex.Config) { c.BeatTTL = -1 },
		"timeout":          func(c *sharedindex.Config) { c.Timeout = -1 },
		"events":           func(c *sharedindex.Config) { c.MaxEvents = -1 },
	} {
		c := good
		spoil(&c)
		if x, err := sharedindex.New(c); err == nil {
			t.Errorf("%s: %+v was taken", name, x.Stats())
		}
	}
}
