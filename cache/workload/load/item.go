// Package load sends requests to registries when they are due and says how long
// each took: an open loop, in which a slow answer delays no other request, or a
// closed one.
package load

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// Op is what is done for an item.
type Op string

// What can be done.
const (
	Get  Op = "get"  // the whole, or a range of it
	Head Op = "head" //
	Push Op = "push" // a blob (POST, PATCH, PUT) or a manifest (PUT)
	// Of an upload whose parts were recorded one by one:
	Start  Op = "start"  // POST
	Append Op = "append" // PATCH
	Finish Op = "finish" // PUT
)

// Item is one request to send. It has all that the sender needs, for it may be on
// another machine than the trace. It has a JSON form.
type Item struct {
	Seq      uint64        `json:"seq"` // in the order of the trace, from 0
	Due      time.Duration `json:"due"` // since the start of the run; not used in a closed loop
	Op       Op            `json:"op"`
	Kind     trace.Kind    `json:"kind"`
	URI      string        `json:"uri"`                // as recorded
	Path     string        `json:"path"`               // to ask for: "/v2/..."
	Query    string        `json:"query,omitempty"`    // such as "ns=docker.io"
	Registry int           `json:"registry,omitempty"` // index of Config.Registries
	Digest   digest.Digest `json:"digest,omitempty"`   // that the whole body must have; "": not checked
	Size     int64         `json:"size,omitempty"`     // bytes expected, or to push; -1: not known
	Off      int64         `json:"off,omitempty"`      // of a range read
	Len      int64         `json:"len,omitempty"`      // of a range read; 0: the whole
	Client   string        `json:"client,omitempty"`   // who asked in the trace
	Absent   bool          `json:"absent,omitempty"`   // 404 is the right answer, as it was in the trace
}

// Source is a stream of items in the order in which they are due.
type Source interface {
	// Next returns the next item, io.EOF after the last one. It may wait, for the
	// master or for pacing by the one who reads ahead.
	Next(ctx context.Context) (Item, error)
}

// Result is what became of an item. It has a JSON form.
type Result struct {
	Seq      uint64        `json:"seq"`
	Op       Op            `json:"op"`
	Kind     trace.Kind    `json:"kind"`
	Ranged   bool          `json:"ranged,omitempty"`
	URI      string        `json:"uri"`
	Registry int           `json:"registry,omitempty"`
	Status   int           `json:"status,omitempty"` // 0: there was no answer
	Bytes    int64         `json:"bytes"`            // of the body, received or sent
	Intended time.Time     `json:"intended"`         // when it was due; in a closed loop, when it was sent
	Sent     time.Time     `json:"sent"`
	Late     time.Duration `json:"late,omitempty"`    // from when it was due to Sent, also in a closed loop that is paced
	First    time.Duration `json:"first"`             // from Sent to the head of the answer
	Service  time.Duration `json:"service"`           // from Sent to the last byte
	Latency  time.Duration `json:"latency"`           // from Intended to the last byte
	Outcome  string        `json:"outcome,omitempty"` // "hit", "miss" or what else a cache said of itself
	Cause    Cause         `json:"cause,omitempty"`   // of a failure
	Err      string        `json:"err,omitempty"`     // its text
}

// Cause is why a request failed.
type Cause string

// Why requests fail.
const (
	CauseNone     Cause = ""
	CauseStatus   Cause = "status"   // the registry refused it
	CauseConnect  Cause = "connect"  // no connection
	CauseCut      Cause = "cut"      // the connection or the body ended early
	CauseTimeout  Cause = "timeout"  //
	CauseMismatch Cause = "mismatch" // the body is not what was pushed
	CauseAuth     Cause = "auth"     // no token
	CauseAborted  Cause = "aborted"  // the run ended first
	CauseLost     Cause = "lost"     // the client that had it is gone
)
