package sharedindex

import (
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

// PermissionKeys are the keys of a permission: of its scope's epoch and of itself.
func (x *Index) PermissionKeys(n permit.Name) []string { return x.permissionKeys(n) }

// ParsePlace reads an answer to Locate.
func ParsePlace(reply any) (Place, error) { return parsePlace(reply) }

// ParseReplicas reads an answer to Replicas that was made at now.
func ParseReplicas(reply any, now time.Time) ([]Replica, error) { return parseReplicas(reply, now) }

// ParsePosition reads a position and writes it.
func ParsePosition(s string) (string, error) {
	p, err := parsePosition(s)
	return p.String(), err
}

// ParseEntry reads an entry of the stream.
func ParseEntry(id string, values map[string]any) (Announcement, error) {
	_, a, err := parseEntry(redis.XMessage{ID: id, Values: values})
	return a, err
}

// ParseGrant reads an answer to Granted.
func ParseGrant(reply any) (permit.Grant, error) { return parseGrant(reply) }

// How long epochs are handed out and kept.
const (
	MaxDecision    = maxDecision
	KeptRevocation = keptRevocation
	MaxConnections = maxConnections
)
