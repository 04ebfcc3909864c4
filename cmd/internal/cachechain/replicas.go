package cachechain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/cacheadmin"
)

// Replica is one of those that share, as it said of itself some seconds ago.
type Replica struct {
	Name   string
	Seen   time.Time // when it said so, by the clock of this machine
	Status ReplicaStatus
	Err    error // why its status can not be read
}

// maxVersion bounds the name of a version, in bytes.
const maxVersion = 64

// ParseReplicaStatus reads what a replica says of itself. Whoever can write to Redis
// can say that: text and numbers are looked at here, and are fit to be shown. Fields
// that are not known are those of another version.
func ParseReplicaStatus(text []byte) (ReplicaStatus, error) {
	var s ReplicaStatus
	if err := json.Unmarshal(text, &s); err != nil {
		return ReplicaStatus{}, fmt.Errorf("reading the status of a replica: %w", err)
	}
	if len(s.Version) > maxVersion || !printable(s.Version) {
		return ReplicaStatus{}, errors.New("the status of a replica has a version that is none")
	}
	if s.Hits > s.Requests || min(s.Bytes, s.MaxBytes, int64(s.Blobs), s.FromPeer, s.FromTier, s.Upstream) < 0 {
		return ReplicaStatus{}, errors.New("the status of a replica has figures that can not be")
	}
	if y := s.Started.UTC().Year(); y < 1970 || y > 9999 {
		return ReplicaStatus{}, errors.New("the status of a replica has a time that can not be")
	}
	return s, nil
}

// printable reports whether s is of visible ASCII characters and blanks.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// List returns the replicas that are there, by name, and those among them whose status
// makes no sense. ctx bounds how long the index is asked.
func (c *Cluster) List(ctx context.Context) ([]Replica, error) {
	all, err := c.Replicas(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Replica, 0, len(all))
	for _, r := range all {
		one := Replica{Name: r.Name, Seen: r.Seen}
		one.Status, one.Err = ParseReplicaStatus(r.Status)
		out = append(out, one)
	}
	return out, nil
}

// stat is what an operator is told.
func (c *Cluster) stat() *cacheadmin.ClusterStat {
	s := c.Stats()
	out := &cacheadmin.ClusterStat{
		Self: c.Self, FromPeers: s.Peers.Bytes, FromTier: s.Tier.Bytes, FromUpstreams: s.Upstream.Bytes, Given: s.Given,
		Leases: s.Leases, Alone: s.Alone, Written: s.Written, Unwritten: s.Unwritten, Queue: s.Queue, Damaged: s.Damaged,
	}
	if s.HasIndex {
		out.Index = &cacheadmin.Reached{Up: s.Index.Up, Since: s.Index.Since, Error: s.Index.LastError}
	}
	if s.HasTier {
		t := s.Shared.Reading
		if s.Shared.Writing.Away && !t.Away {
			t = s.Shared.Writing
		}
		out.Tier = &cacheadmin.Reached{Up: !t.Away, Since: t.Since, Error: t.Error}
	}
	return out
}
