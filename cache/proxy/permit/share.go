package permit

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"time"
)

// Shared is a place that replicas keep permissions in for each other, by names and
// with values that say nothing to it. Each call is to return soon, with an error if the
// place is not reached; whatever it costs is added to what the upstream takes. Errors
// and what is kept must hold nothing of ctx.
type Shared interface {
	// Granted returns what is kept by the name under its scope's present epoch,
	// and that epoch. It should write nothing: anybody can make its callers ask.
	Granted(ctx context.Context, n Name) (Grant, error)
	// Grant keeps a value for ttl. If the scope's epoch is not the one given any
	// more, it keeps nothing and returns false.
	Grant(ctx context.Context, n Name, epoch uint64, value []byte, ttl time.Duration) (bool, error)
	// Revoke makes the scope's epoch another one, that it never had: nothing that
	// was kept in it, and nothing that is granted under an earlier epoch, is
	// returned again. That holds also if the place forgets the epoch, after as
	// long as it let a grant take.
	Revoke(ctx context.Context, scope [32]byte) error
}

// Name names a permission in a Shared. Scope is of a credential and a repository of an
// upstream, Item of a resource in it; both are hashes under a key that the place has
// not.
type Name struct{ Scope, Item [32]byte }

// Grant is what a Shared has for a Name.
type Grant struct {
	Value []byte        // nil if nothing
	Left  time.Duration // how much longer it is kept, at some time during the call
	Epoch uint64        // of the scope, also if there is no value
}

const (
	// sharedWait bounds each call of a Shared. It is also how long a value may be
	// on its way to it: so much earlier than by age it ends there.
	sharedWait = time.Second
	// maxLife bounds how long an answer is shared.
	maxLife = 30 * 24 * time.Hour
	// maxUntold bounds sharing.untold.
	maxUntold = 1024
	// minSecret is the least number of bytes of a cluster secret.
	minSecret = 32
)

// sharing is what a Checker shares answers by.
type sharing struct {
	with          Shared
	names, values []byte // keys of names, and of the MACs of values

	// The rest is guarded by Checker.mu.

	// since is when the HEAD must have been sent of an answer that counts.
	since time.Time
	// untold is the same for scopes with a refusal that the place was not told,
	// or not yet.
	untold map[[32]byte]time.Time
}

// Share makes the Checker share answers with those of other replicas that have the same
// place and cluster secret. It must be called before anything else, if at all. With the
// policy Trusted there is nothing to share.
func (c *Checker) Share(with Shared, secret []byte) error {
	if len(secret) < minSecret {
		return fmt.Errorf("cluster secret of %d bytes is shorter than %d", len(secret), minSecret)
	}
	if c.cfg.Policy == Trusted {
		return nil
	}
	s := &sharing{with: with, untold: make(map[[32]byte]time.Time)}
	for _, k := range []struct {
		key *[]byte
		of  string
	}{{&s.names, "reprise permissions v1"}, {&s.values, "reprise shared answers v1"}} {
		key, err := hkdf.Key(sha256.New, secret, nil, k.of, sha256.Size)
		if err != nil {
			return fmt.Errorf("deriving the key of %s: %w", k.of, err)
		}
		*k.key = key
	}
	c.share = s
	return nil
}

// counts reports whether an answer to a HEAD sent then may count. Checker.mu is held.
func (s *sharing) counts(scope *[32]byte, sent time.Time) bool {
	return sent.After(s.since) && sent.After(s.untold[*scope])
}

// refused remembers a refusal until the place knows of it; life is how long an answer
// from before it could count. Checker.mu is held.
func (s *sharing) refused(scope *[32]byte, now time.Time, life time.Duration) {
	if len(s.untold) >= maxUntold {
		for other, at := range s.untold {
			if now.Sub(at) > life {
				delete(s.untold, other)
			}
		}
	}
	if len(s.untold) >= maxUntold {
		// Too many to tell apart: what is there counts for nobody.
		clear(s.untold)
		s.since = now
	}
	s.untold[*scope] = now
}
