package sharedindex

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

var _ permit.Shared = (*Index)(nil)

const (
	// maxDecision is how long an upstream may take to say what a credential may do,
	// where its scope has no epoch: what it says later is not kept.
	maxDecision = time.Minute

	// keptRevocation is how long the epoch of a revocation is kept: until all that was
	// asked before it is too late, also if the clock of Redis goes back a little.
	keptRevocation = 2 * maxDecision

	// sameEpoch is how long those who ask for a scope that has no epoch get the same
	// one: of what they are told at the same time, all is kept, not the first alone.
	sameEpoch = 10 * time.Second

	maxLeft = math.MaxInt64 / int64(time.Millisecond) // what a Duration can be, in milliseconds
)

func (x *Index) permissionKeys(n permit.Name) []string {
	scope := base64.RawURLEncoding.EncodeToString(n.Scope[:])
	item := base64.RawURLEncoding.EncodeToString(n.Item[:])
	return []string{x.tagged(scope, "epoch"), x.tagged(scope, "item:"+item)}
}

// Granted implements permit.Shared: what was decided about a permission under its scope's
// present epoch. It writes nothing. Whether the value is a replica's, permit sees.
func (x *Index) Granted(ctx context.Context, n permit.Name) (permit.Grant, error) {
	reply, err := x.run(ctx, opGranted, grantedScript, x.permissionKeys(n), sameEpoch.Microseconds())
	if err != nil {
		return permit.Grant{}, err
	}
	g, err := parseGrant(reply)
	if err != nil {
		return permit.Grant{}, x.wrong("%w", err)
	}
	return g, nil
}

// parseGrant reads the reply of granted.lua. A value that is too long to be one is none.
func parseGrant(reply any) (permit.Grant, error) {
	s, err := texts(reply)
	if err != nil {
		return permit.Grant{}, err
	}
	if len(s) != 3 {
		return permit.Grant{}, fmt.Errorf("permission of %d parts", len(s))
	}
	n, err := parseNumbers(s[0], s[2])
	if err != nil {
		return permit.Grant{}, err
	}
	g := permit.Grant{Epoch: uint64(n[0])}
	if s[1] != "" && len(s[1]) <= MaxValue {
		g.Value, g.Left = []byte(s[1]), time.Duration(min(n[1], maxLeft))*time.Millisecond
	}
	return g, nil
}

// Grant implements permit.Shared: it keeps what was decided about a permission, for ttl.
// epoch is the one that Granted returned before the upstream was asked; it is not kept if
// the scope was revoked since, or if that is long ago.
func (x *Index) Grant(ctx context.Context, n permit.Name, epoch uint64, value []byte, ttl time.Duration) (bool, error) {
	switch {
	case len(value) == 0 || len(value) > MaxValue:
		return false, fmt.Errorf("granting a permission: %d bytes are none, or more than %d", len(value), MaxValue)
	case ttl < time.Millisecond:
		return false, fmt.Errorf("granting a permission for %s", ttl)
	}
	err := x.fenced(ctx, opGrant, grantScript, x.permissionKeys(n), epoch, value, ttl.Milliseconds(), maxDecision.Milliseconds())
	if errors.Is(err, ErrFenced) {
		return false, nil
	}
	return err == nil, err
}

// Revoke implements permit.Shared: it makes all permissions of a scope void, and those
// whose decision is on its way. If it fails, those that were granted count until their
// TTL ends.
func (x *Index) Revoke(ctx context.Context, scope [32]byte) error {
	keys := x.permissionKeys(permit.Name{Scope: scope})[:1]
	_, err := x.run(ctx, opRevoke, revokeScript, keys, keptRevocation.Milliseconds())
	return err
}
