package contrib_test

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex/redistest"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

// aclRules returns what docs/registry-cache.md gives a user of Redis'.
func aclRules(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/registry-cache.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^ *user registry-cache (.*)$`).FindSubmatch(text)
	if found == nil {
		t.Fatal("docs/registry-cache.md has no rules for a user of Redis")
	}
	return strings.Fields(string(found[1]))
}

// allow makes the user with the rules.
func allow(t *testing.T, s *redistest.Server, rules []string) {
	t.Helper()
	c := s.Client()
	defer c.Close()
	args := []any{"ACL", "SETUSER", "registry-cache", "reset"}
	for _, r := range rules {
		args = append(args, r)
	}
	if err := c.Do(t.Context(), args...).Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.ScriptFlush(t.Context()).Err(); err != nil { // scripts are sent again
		t.Fatal(err)
	}
}

// asUser does each operation on the index as the user, and returns what went wrong.
func asUser(ctx context.Context, addrs []string) error {
	x, err := sharedindex.New(sharedindex.Config{
		Addrs: addrs, Username: "registry-cache", Password: "PASSWORD", Replica: "a.example:7001", Timeout: 20 * time.Second,
	})
	if err != nil {
		return err
	}
	defer x.Close()
	k := sharedindex.Key{Digest: digest.FromString(time.Now().String())}
	w := sharedindex.Wanted{Key: k, Extent: sharedindex.Extent{Off: 0, End: 100}}
	p := permit.Name{Scope: [32]byte{1}, Item: [32]byte{2}}
	var token, epoch uint64
	after, err := x.Tail(ctx)
	if err != nil {
		return err
	}
	for _, do := range []func() error{
		func() error {
			place, err := x.Locate(ctx, w)
			if err == nil && place.Lease == nil {
				err = errors.New("there is no lease")
			}
			if err == nil {
				token = place.Lease.Token
			}
			return err
		},
		func() error { return x.Renew(ctx, k, token) },
		func() error { return x.Release(ctx, k, token, true) },
		func() error { return x.Hold(ctx, k) },
		func() error { _, err := x.Look(ctx, k); return err },
		func() (err error) { token, _, err = x.Claim(ctx, k.Digest); return err },
		func() error { return x.RenewClaim(ctx, k.Digest, token) },
		func() error { return x.Publish(ctx, k.Digest, sharedindex.Stored{Generation: token, Size: 100}) },
		func() error { return x.Unpublish(ctx, k.Digest, token) },
		func() error { return x.Drop(ctx, "", k) },
		func() error { g, err := x.Granted(ctx, p); epoch = g.Epoch; return err },
		func() error { _, err := x.Grant(ctx, p, epoch, []byte{1}, time.Minute); return err },
		func() error { return x.Revoke(ctx, p.Scope) },
		func() error { _, _, err := x.Beat(ctx, []byte("{}")); return err },
		func() error { _, err := x.Replicas(ctx); return err },
		func() error { return x.Announce(ctx, []byte("said")) },
		func() error { return followed(ctx, x, after) },
	} {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// followed waits for an announcement, or for an error of following.
func followed(ctx context.Context, x *sharedindex.Index, after string) error {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	heard := make(chan struct{}, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- x.Follow(within, after, func(sharedindex.Announcement) { heard <- struct{}{}; cancel() })
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-heard:
			<-ended
			return nil
		case <-tick.C:
			if s := x.Stats(); s.Errors > 0 {
				cancel()
				<-ended
				return errors.New(s.LastError)
			}
		}
	}
}

// refused is what Redis says to a user, and of one that runs a script.
var refused = regexp.MustCompile("NOPERM|can't run this command")

// What the documentation lets a user of Redis do is what is needed, and no more.
func TestRedisUser(t *testing.T) {
	s := redistest.Start(t)
	rules := aclRules(t)
	allow(t, s, rules)
	if err := asUser(t.Context(), []string{s.Addr()}); err != nil {
		t.Fatalf("with %v: %v", rules, err)
	}
	for i, r := range rules {
		if !strings.HasPrefix(r, "+") || strings.Contains(r, "|") { // those of a cluster
			continue
		}
		allow(t, s, append(append([]string{}, rules[:i]...), rules[i+1:]...))
		if err := asUser(t.Context(), []string{s.Addr()}); err == nil || !refused.MatchString(err.Error()) {
			t.Errorf("without %s: %v", r, err)
		}
	}
}

func TestRedisUserOfACluster(t *testing.T) {
	c := redistest.StartCluster(t)
	for _, s := range c.Nodes {
		allow(t, s, aclRules(t))
	}
	if err := asUser(t.Context(), c.Addrs()); err != nil {
		t.Error(err)
	}
	for _, s := range c.Nodes {
		denied(t, s)
	}
}

// denied fails the test if something was asked that is not allowed.
func denied(t *testing.T, s *redistest.Server) {
	t.Helper()
	c := s.Client()
	defer c.Close()
	log, err := c.ACLLog(t.Context(), 10).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range log {
		t.Errorf("%s is refused: %s of %s", l.Username, l.Reason, l.Object)
	}
}
