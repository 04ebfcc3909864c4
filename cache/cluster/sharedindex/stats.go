package sharedindex

import (
	"sync/atomic"
	"time"
)

// op is a kind of operation, for counting.
type op int

const (
	opLocate op = iota
	opRenew
	opRelease
	opHold
	opDrop
	opClaim
	opRenewClaim
	opUnclaim
	opPublish
	opUnpublish
	opAnnounce
	opFollow
	opBeat
	opReplicas
	opGranted
	opGrant
	opRevoke
	opProbe
	opCount
)

var opNames = [opCount]string{
	"locate", "renew", "release", "hold", "drop", "claim", "renew_claim", "unclaim", "publish",
	"unpublish", "announce", "follow", "beat", "replicas", "granted", "grant", "revoke", "probe",
}

// Stats are counters since New and the present state.
type Stats struct {
	Up        bool      // no node of Redis is known to be away
	Since     time.Time // when Up became what it is
	LastError string    // of the last call that failed, "" if none did

	Ops    map[string]uint64 // commands and scripts that were sent, by kind
	Errors uint64            // calls that Redis did not answer, or answered with an error
	Away   uint64            // calls that failed at once, because Redis was known to be away
}

// counters are what Stats are made of.
type counters struct {
	ops    [opCount]atomic.Uint64
	errors atomic.Uint64
	away   atomic.Uint64
}

// Stats returns counters and the state.
func (x *Index) Stats() Stats {
	s := Stats{Ops: make(map[string]uint64, opCount), Errors: x.count.errors.Load(), Away: x.count.away.Load()}
	for i := range x.count.ops {
		s.Ops[opNames[i]] = x.count.ops[i].Load()
	}
	s.Up, s.Since, s.LastError = x.circuit.state()
	return s
}
