package cluster

import (
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
)

// message is a line. One field of it is set; fields are in the order in which they
// come in a run.
type message struct {
	Hello   *hello   `json:"hello,omitempty"`   // the first line of both
	Auth    *auth    `json:"auth,omitempty"`    // of the master, then of the client
	Refused *refusal `json:"refused,omitempty"` // the client's last
	Time    *timing  `json:"time,omitempty"`    // the master asks, the client answers; the master's heartbeat too
	Order   *order   `json:"order,omitempty"`   // of the master
	Ready   *ready   `json:"ready,omitempty"`   // of the client, to an order

	Items []load.Item `json:"items,omitempty"` // of the master
	End   bool        `json:"end,omitempty"`   // of the master: there are no more items
	Abort string      `json:"abort,omitempty"` // of the master: why

	Take    int         `json:"take,omitempty"`    // of the client: so many more items may come
	Results []result    `json:"results,omitempty"` // of the client
	Beat    *load.Stats `json:"beat,omitempty"`    // of the client: its heartbeat
	Done    *done       `json:"done,omitempty"`    // of the client, its last
}

// hello says who speaks.
type hello struct {
	Protocol int    `json:"protocol"`
	Version  string `json:"version"`
	Nonce    []byte `json:"nonce"`
}

// auth proves that a side knows the secret.
type auth struct {
	Code []byte        `json:"code"`
	Beat time.Duration `json:"beat,omitempty"` // of the master: between heartbeats
}

// refusal is why a client does nothing for a master.
type refusal struct {
	Why  string `json:"why"` // a key of refusals
	Text string `json:"text,omitempty"`
}

// refusals are the errors that a client refuses with.
var refusals = map[string]error{"secret": ErrSecret, "version": ErrVersion, "busy": ErrBusy}

// timing is a question for the time and its answer, in ns since 1970 of the clock of
// the side that wrote them.
type timing struct {
	Asked int64 `json:"asked"`
	Told  int64 `json:"told,omitempty"`
}

// order is the job and when it begins, in ns since 1970 of the client's clock.
type order struct {
	Job   Job   `json:"job"`
	Start int64 `json:"start"`
}

// ready is how many items a client holds.
type ready struct {
	Window int `json:"window"`
}

// result is a load.Result of which the master knows what the item was. Its times are
// in ns since the start.
type result struct {
	load.Result
	Intended int64 `json:"intended"`
	Sent     int64 `json:"sent"`
}

// pack returns r as it is sent.
func pack(r load.Result, start time.Time) result {
	p := result{Result: r}
	if !r.Intended.IsZero() {
		p.Intended = int64(r.Intended.Sub(start))
	}
	if !r.Sent.IsZero() {
		p.Sent = int64(r.Sent.Sub(start))
	}
	p.URI, p.Op, p.Kind, p.Ranged = "", "", 0, false
	return p
}

// unpack returns the result of an item.
func (p result) unpack(it *load.Item, start time.Time) load.Result {
	r := p.Result
	r.URI, r.Op, r.Kind, r.Ranged = it.URI, it.Op, it.Kind, it.Len > 0
	r.Registry = it.Registry
	r.Intended = start.Add(time.Duration(p.Intended))
	r.Sent = start.Add(time.Duration(p.Sent))
	return r
}

// done is how a job ended.
type done struct {
	Stats load.Stats `json:"stats"`
	Err   string     `json:"err,omitempty"` // "": as it should
}
