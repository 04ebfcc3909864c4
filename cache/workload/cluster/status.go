package cluster

import (
	"slices"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
)

// State is how far a client is.
type State string

// The states of a client.
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
func (m *Master) Clients() []Status {
	out := make([]Status, 0, len(m.links))
	for _, l := range m.links {
		l.mu.Lock()
		s := l.status
		s.Offset, s.RTT = l.clocks.offset, l.clocks.rtt
		l.mu.Unlock()
		out = append(out, s)
	}
	return out
}

// Stats returns those of all clients together, the worst of their lags. It may be
// called during the run.
func (m *Master) Stats() load.Stats {
	var all load.Stats
	for _, c := range m.Clients() {
		s := c.Stats
		if c.State == Lost {
			s.InFlight = 0
		}
		s.Saturated = slices.Clone(s.Saturated)
		for i, why := range s.Saturated {
			s.Saturated[i] = c.Client + ": " + why
		}
		all = all.With(s)
	}
	return all
}
