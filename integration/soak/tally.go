package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"
)

// patience is how long a client that tries again goes on.
const patience = 20 * time.Second

// maxFailures is how many failures are kept in words.
const maxFailures = 20

// tally counts what happened.
type tally struct {
	mu       sync.Mutex
	counts   map[string]int
	read     int64
	failures []error
	wrong    int
}

func (t *tally) add(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[string]int{}
	}
	t.counts[what]++
}

func (t *tally) bytes(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.read += n
}

// fail notes what must not happen.
func (t *tally) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wrong++
	if len(t.failures) < maxFailures {
		t.failures = append(t.failures, fmt.Errorf("%s: %w", time.Now().Format(time.TimeOnly), err))
	}
}

func (t *tally) failed() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.failures...)
}

// print lists the counts.
func (t *tally) print(w io.Writer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(t.counts)) {
		fmt.Fprintf(w, "%9d  %s\n", t.counts[k], k)
	}
}
