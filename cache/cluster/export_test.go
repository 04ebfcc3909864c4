package cluster

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// Share tells and writes back now, in the caller's time, and renews nothing meanwhile.
func (c *Cluster) Share(ctx context.Context, d digest.Digest) error { return c.share(ctx, d) }

// RenewAll renews what is held, once.
func (c *Cluster) RenewAll(ctx context.Context) {
	leases, claims := c.held()
	for _, l := range leases {
		_ = l.renew(ctx)
	}
	for _, w := range claims {
		w.renew(ctx)
	}
}
