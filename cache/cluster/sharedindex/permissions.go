package sharedindex

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"
)

// keptEpoch is how long an epoch is kept at least: longer than an upstream takes to say
// what a credential may do. One that is lost makes a decision void, never valid.
const keptEpoch = 10 * time.Minute

// ID names a scope of permissions or an item in it, see Identify.
type ID [sha256.Size]byte

// Permission names what one credential may do with one thing, within a scope that is
// revoked as a whole. The item's name must be made of the credential too.
type Permission struct{ Scope, Item ID }

// Grant is what is known of one permission.
type Grant struct {
	Found bool
	Value []byte        // what was decided, if Found
	Epoch uint64        // of the scope: what Index.Grant has to be given
	Left  time.Duration // how much longer it is kept, by Redis; 0 if it has no end
}

// Identify returns the HMAC of parts, by a key made of the cluster secret: the name of a
// scope or an item. No two different lists of parts have the same, and nobody without the
// secret can tell the parts from it.
func (x *Index) Identify(parts ...string) ID {
	h := hmac.New(sha256.New, x.nameKey)
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		h.Write([]byte(p))
	}
	return ID(h.Sum(nil))
}

func (p Permission) keys(x *Index) []string {
	scope := base64.RawURLEncoding.EncodeToString(p.Scope[:])
	item := base64.RawURLEncoding.EncodeToString(p.Item[:])
	return []string{x.tagged(scope, "epoch"), x.tagged(scope, "item:"+item)}
}

// Granted returns what was decided about a permission under its scope's present epoch.
func (x *Index) Granted(ctx context.Context, p Permission) (Grant, error) {
	reply, err := x.run(ctx, opGranted, grantedScript, p.keys(x), keptEpoch.Milliseconds())
	if err != nil {
		return Grant{}, err
	}
	g, err := x.parseGrant(reply, p)
	if err != nil {
		return Grant{}, x.wrong("%w", err)
	}
	return g, nil
}

// parseGrant reads the reply of granted.lua. A value whose MAC is not right was granted
// under an earlier epoch, or by somebody without the secret: it is not found.
func (x *Index) parseGrant(reply any, p Permission) (Grant, error) {
	s, err := texts(reply)
	if err != nil {
		return Grant{}, err
	}
	if len(s) != 3 {
		return Grant{}, fmt.Errorf("permission of %d parts", len(s))
	}
	epoch, err := parseNumber(s[0])
	if err != nil {
		return Grant{}, err
	}
	left, err := parseNumber(s[2])
	if err != nil {
		return Grant{}, err
	}
	g := Grant{Epoch: uint64(epoch)}
	sealed := []byte(s[1])
	if len(sealed) < sha256.Size || len(sealed) > sha256.Size+MaxValue {
		return g, nil
	}
	mac, value := sealed[:sha256.Size], sealed[sha256.Size:]
	if hmac.Equal(mac, x.mac(p, g.Epoch, value)) {
		g.Found, g.Value, g.Left = true, value, time.Duration(left)*time.Millisecond
	}
	return g, nil
}

// mac is over what is decided, about what, and under which epoch.
func (x *Index) mac(p Permission, epoch uint64, value []byte) []byte {
	h := hmac.New(sha256.New, x.sealKey)
	h.Write(p.Scope[:])
	h.Write(p.Item[:])
	h.Write(binary.BigEndian.AppendUint64(nil, epoch))
	h.Write(value)
	return h.Sum(nil)
}

// Grant says what was decided about a permission, for ttl. epoch is the one that Granted
// returned before the upstream was asked; ErrFenced if the scope was revoked since.
func (x *Index) Grant(ctx context.Context, p Permission, epoch uint64, value []byte, ttl time.Duration) error {
	switch {
	case len(value) > MaxValue:
		return fmt.Errorf("granting a permission: %d bytes are more than %d", len(value), MaxValue)
	case ttl < time.Millisecond:
		return fmt.Errorf("granting a permission for %s", ttl)
	}
	sealed := append(x.mac(p, epoch, value), value...)
	return x.fenced(ctx, opGrant, grantScript, p.keys(x), epoch, sealed, ttl.Milliseconds())
}

// Revoke makes all permissions of a scope void, and those whose decision is on its way.
// If it fails, those that were granted count until their TTL ends.
func (x *Index) Revoke(ctx context.Context, scope ID) error {
	_, err := x.run(ctx, opRevoke, revokeScript, Permission{Scope: scope}.keys(x)[:1], keptEpoch.Milliseconds())
	return err
}
