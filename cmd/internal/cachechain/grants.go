package cachechain

import (
	"context"
	"errors"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

var _ permit.Shared = grants{}

// grants are the permissions that replicas keep for each other in their index.
type grants struct{ index *sharedindex.Index }

// Granted implements permit.Shared.
func (g grants) Granted(ctx context.Context, n permit.Name) (permit.Grant, error) {
	found, err := g.index.Granted(ctx, sharedindex.Permission{Scope: n.Scope, Item: n.Item})
	grant := permit.Grant{Epoch: found.Epoch}
	if found.Found {
		grant.Value, grant.Left = found.Value, found.Left
	}
	return grant, err
}

// Grant implements permit.Shared.
func (g grants) Grant(ctx context.Context, n permit.Name, epoch uint64, value []byte, ttl time.Duration) (bool, error) {
	err := g.index.Grant(ctx, sharedindex.Permission{Scope: n.Scope, Item: n.Item}, epoch, value, ttl)
	if errors.Is(err, sharedindex.ErrFenced) {
		return false, nil
	}
	return err == nil, err
}

// Revoke implements permit.Shared.
func (g grants) Revoke(ctx context.Context, scope [32]byte) error { return g.index.Revoke(ctx, scope) }
