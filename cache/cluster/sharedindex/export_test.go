package sharedindex

import (
	"time"

	"github.com/redis/go-redis/v9"
)

// PermissionKeys are the keys of a permission: of its scope's epoch and of itself.
func (x *Index) PermissionKeys(p Permission) []string { return p.keys(x) }

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
func (x *Index) ParseGrant(reply any, p Permission) (Grant, error) { return x.parseGrant(reply, p) }
