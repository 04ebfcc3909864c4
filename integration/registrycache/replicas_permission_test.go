package registrycache_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/integration/registrycache/origin"
	"github.com/reprise-containers/reprise/integration/registrycache/swarm"
)

// guarded is an upstream with two users behind three replicas that share permissions.
type guarded struct {
	*replicas
	secret     *origin.Content // in alice's repository
	other      *origin.Content // in both
	alice, bob string          // Authorization
}

func beginGuarded(t *testing.T, ttl string) *guarded {
	t.Helper()
	g := &guarded{
		replicas: beginReplicas(t, sharing{over: values{"permission": values{
			"ttl": ttl, "rangeTTL": ttl, "manifestTTL": ttl, "negativeTTL": "0s",
		}}}),
		secret: origin.Random(40, 300<<10), other: origin.Random(41, 300<<10),
	}
	g.together()
	g.up.Private(time.Hour, http.StatusForbidden)
	for _, name := range []string{"alice", "bob"} {
		g.up.AddUser(name, name+"'s password")
		g.up.SetReaders("team/"+name, name)
		g.up.AddBlob("team/"+name, g.other)
	}
	g.up.AddBlob("team/alice", g.secret)
	g.alice, g.bob = g.up.Token("alice"), g.up.Token("bob")
	return g
}

// reads reports whether a caller of a replica gets a blob, whole or in part; whatever it
// gets is right.
func (g *guarded) reads(i int, as, repo string, b *origin.Content, part bool) bool {
	g.t.Helper()
	p := swarm.Pull{Repo: repo, Digest: b.Digest, Blob: b}
	if part {
		p.Off, p.N = 1000, 5000
	}
	_, err := g.target(i, as).Pull(g.ctx, p)
	if err == nil {
		return true
	}
	if e, ok := err.(*swarm.StatusError); !ok || e.Status != http.StatusForbidden && e.Status != http.StatusUnauthorized && e.Status != http.StatusNotFound {
		g.t.Errorf("reading %s by replica %d: %v", repo, i, err)
	}
	return false
}

// TestReplicasKeepPermissionsApart has one replica learn what alice may, and all others
// asked by those who may not.
func TestReplicasKeepPermissionsApart(t *testing.T) {
	g := beginGuarded(t, "10m")
	for _, part := range []bool{true, false} {
		if !g.reads(0, g.alice, "team/alice", g.secret, part) {
			t.Fatal("alice may not read what is hers")
		}
	}
	heads := g.up.Stats().Blobs[g.secret.Digest].Heads
	for i := range g.all {
		for _, part := range []bool{true, false} {
			if !g.reads(i, g.alice, "team/alice", g.secret, part) {
				t.Errorf("alice may not read what is hers by replica %d", i)
			}
		}
	}
	if after := g.up.Stats().Blobs[g.secret.Digest].Heads; after != heads {
		t.Errorf("what one replica knew the others asked %d times", after-heads)
	}
	for i := range g.all {
		for _, as := range []string{"", g.bob, "Bearer forged"} {
			for _, part := range []bool{true, false} {
				if g.reads(i, as, "team/alice", g.secret, part) {
					t.Errorf("%.10q reads what is alice's by replica %d", as, i)
				}
				// Neither by way of a repository that is his: the digest alone opens nothing.
				if g.reads(i, as, "team/bob", g.secret, part) {
					t.Errorf("%.10q reads what is alice's by replica %d and another repository", as, i)
				}
			}
		}
		if !g.reads(i, g.bob, "team/bob", g.other, false) {
			t.Errorf("bob may not read what is his by replica %d", i)
		}
	}
}

// TestReplicasRevoke takes alice's rights away: what one replica hears no replica has
// shared any more, and what each remembers ends with its time.
func TestReplicasRevoke(t *testing.T) {
	g := beginGuarded(t, "4s")
	for i := range 2 { // the third knows of it from the others only
		if !g.reads(i, g.alice, "team/alice", g.secret, true) {
			t.Fatal("alice may not read what is hers")
		}
	}
	g.up.SetReaders("team/alice", "carol")
	if g.reads(0, g.alice, "team/alice", g.other, false) { // nobody has asked for this one
		t.Error("alice reads what she may not any more")
	}
	if g.reads(2, g.alice, "team/alice", g.secret, true) {
		t.Error("one replica has heard a refusal, and another serves what was shared before")
	}
	for i := range g.all {
		g.eventually("alice is refused everywhere", func() bool { return !g.reads(i, g.alice, "team/alice", g.secret, true) })
	}
}
