package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
)

// Master sends items through clients. It is made by New, and runs once.
type Master struct {
	cfg MasterConfig
}

var _ load.Runner = (*Master)(nil)

// New returns a master of the clients of cfg. It does not connect to them yet.
func New(cfg MasterConfig) (*Master, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Master{cfg: cfg.withDefaults()}, nil
}

// State is how far a client is.
type State string

// The states of a client, in their order.
const (
	Connecting State = "connecting"
	Ready      State = "ready" // it has the job, and waits for the start or sends
	Done       State = "done"
	Lost       State = "lost" // it will not be done
)

// Status is how a client is.
type Status struct {
	Client string        `json:"client"` // its address
	State  State         `json:"state"`
	Offset time.Duration `json:"offset"` // of its clock before the master's, when the run began
	RTT    time.Duration `json:"rtt"`    // of the quickest answer: Offset is right to half of it
	Drift  time.Duration `json:"drift"`  // of its clock before the master's since then
	Items  uint64        `json:"items"`  // that were for it
	Ended  uint64        `json:"ended"`  // of which it told what became
	Lost   uint64        `json:"lost"`   // of which nobody knows
	Stats  load.Stats    `json:"stats"`  // that it told last
	Err    string        `json:"err,omitempty"`
}

// Clients returns how the clients are. It may be called during the run.
func (m *Master) Clients() []Status { return nil }

// Stats returns those of all clients together. It may be called during the run.
func (m *Master) Stats() load.Stats { return load.Stats{} }

// Run implements load.Runner. A client that cannot begin is an error, and nothing is
// sent. One that is lost later is an error when the rest is done: errors.As gives a
// *ClientError for each of them by way of errors.Join.
func (m *Master) Run(ctx context.Context, src load.Source, sink func(load.Result)) (load.Stats, error) {
	return load.Stats{}, errors.New("running by clients is not there yet")
}
