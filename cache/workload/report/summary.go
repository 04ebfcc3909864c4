package report

import (
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
)

// Summary is what became of a replay. Its JSON form is what files of runs have, see
// Read; times in histograms are in microseconds.
type Summary struct {
	Version    int       `json:"version"` // of the JSON form
	Title      string    `json:"title,omitempty"`
	Settings   []Setting `json:"settings,omitempty"` // how the run was made, for people
	Notes      []string  `json:"notes,omitempty"`    // what a reader has to know, such as what was left out
	Registries []string  `json:"registries,omitempty"`
	Runs       int       `json:"runs"` // that follow each other; 1 but for those that were merged

	Start   time.Time     `json:"start"`   // of the first request; of the first run, where there are several
	Elapsed time.Duration `json:"elapsed"` // ns; from the start to the end of the last answer, summed over runs that follow each other

	Groups   []Group               `json:"groups"` // requests that ended alike, sorted
	Sizes    map[string]*Histogram `json:"sizes"`  // of the bodies of answers and pushes that succeeded, bytes, by kind
	Lag      *Histogram            `json:"lag"`    // from when requests were due to when they were sent
	OnTime   int64                 `json:"onTime"` // successes that were sent within OnTime of when they were due
	Failures []Failure             `json:"failures,omitempty"`
	Series   Series                `json:"series"`

	Generator load.Stats `json:"generator"` // how well the requests were sent
}

// Setting is a line on how a run was made.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Key is what the requests of a group have in common.
type Key struct {
	Kind     string `json:"kind"` // trace.Kind in words
	Op       string `json:"op"`   // load.Op
	Ranged   bool   `json:"ranged,omitempty"`
	Status   string `json:"status"`            // "2xx", "none" where there was no answer
	Registry string `json:"registry"`          // its base
	Outcome  string `json:"outcome,omitempty"` // what a cache said of itself
	Failed   bool   `json:"failed,omitempty"`  // whatever the status: a body may have been wrong
	// Cut says that the run ended it, not the registry: it was aborted, or its client
	// was lost. Its times say nothing about the registry.
	Cut bool `json:"cut,omitempty"`
}

// Group is requests that ended alike.
type Group struct {
	Key
	Count   int64      `json:"count"`
	Bytes   int64      `json:"bytes"`
	Service *Histogram `json:"service"` // from sending to the last byte
	Latency *Histogram `json:"latency"` // from when it was due to the last byte
}

// Failure is requests that failed for one reason.
type Failure struct {
	Cause    load.Cause `json:"cause"`
	Kind     string     `json:"kind"`
	Registry string     `json:"registry"`
	Status   int        `json:"status,omitempty"`
	Count    int64      `json:"count"`
	Example  string     `json:"example,omitempty"` // the text of one of them
}

// OnTime is how long after it was due a request may be sent and be on time.
const OnTime = 10 * time.Millisecond
