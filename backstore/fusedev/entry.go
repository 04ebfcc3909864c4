package fusedev

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/fusedev/channel"
)

var (
	errGone    = errors.New("device of an earlier daemon was not added again")
	errRemoved = errors.New("device was removed")
)

// entry is one file of the file system. Its node never changes, and its size can
// only grow, if it can be written.
type entry struct {
	id       string
	node     uint64
	writable bool
	size     atomic.Int64 // bytes

	slots *semaphore.Weighted // bytes, see weight
	stats counters

	mu      sync.Mutex // protects what follows
	device  device.Device
	gone    error         // why there is no device, when settled
	settled chan struct{} // closed when device or gone is set
	users   int           // acquired, not released
	unused  chan struct{} // closed when gone is errRemoved and users is 0
}

// counters count what happened to an entry's requests.
type counters struct {
	requests, bytes, errors, inFlight, waiting atomic.Int64

	writes, written, discards, flushes atomic.Int64
}

// count counts a request.
func (c *counters) count(op channel.Op) {
	switch op {
	case channel.OpRead:
		c.requests.Add(1)
	case channel.OpWrite:
		c.writes.Add(1)
	case channel.OpDiscard:
		c.discards.Add(1)
	case channel.OpFlush:
		c.flushes.Add(1)
	}
}

func newEntry(id string, r record, slotBytes int64) *entry {
	e := &entry{
		id:       id,
		node:     r.Node,
		writable: r.Writable,
		slots:    semaphore.NewWeighted(slotBytes),
		settled:  make(chan struct{}),
		unused:   make(chan struct{}),
	}
	e.size.Store(r.Size)
	return e
}

// record returns what is kept of the entry.
func (e *entry) record() record {
	return record{Node: e.node, Size: e.size.Load(), Writable: e.writable}
}

// writers returns for how many files with writes the entry counts.
func (e *entry) writers() int {
	if e.writable {
		return 1
	}
	return 0
}

// fileName returns the name under which the entry's file is mounted. It has the
// inode number in it, so that a mount of a device that was removed is not taken
// for one of its successor of the same ID.
func (e *entry) fileName() string { return fmt.Sprintf("%s@%x", e.id, e.node) }

// idOf returns the ID in a fileName.
func idOf(name string) string {
	id, _, _ := strings.Cut(name, "@")
	return id
}

// acquire returns the device, waiting for it to be added if it belonged to an
// earlier daemon. release must be called when the device is no longer used.
func (e *entry) acquire(ctx context.Context) (device.Device, error) {
	e.mu.Lock()
	settled := e.settled
	e.mu.Unlock()
	select {
	case <-settled:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.device == nil {
		return nil, e.gone
	}
	e.users++
	return e.device, nil
}

func (e *entry) release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.users--
	e.checkUnused()
}

// checkUnused closes unused when nobody will use the device any more.
func (e *entry) checkUnused() {
	if e.users == 0 && e.gone == errRemoved { //nolint:errorlint // identity, it is never wrapped
		close(e.unused)
	}
}

// set gives the entry its device. It reports false if it has one.
func (e *entry) set(d device.Device) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.device != nil || e.gone == errRemoved { //nolint:errorlint // identity, it is never wrapped
		return false
	}
	e.device = d
	e.settle(nil)
	return true
}

// giveUp ends the waiting for a device that was not added; set may still
// follow.
func (e *entry) giveUp() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.device == nil && e.gone == nil {
		e.settle(errGone)
	}
}

// remove takes the device away for ever. The entry is used no more when unused
// is closed. It reports false if somebody else removed it.
func (e *entry) remove() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone == errRemoved { //nolint:errorlint // identity, it is never wrapped
		return false
	}
	e.device = nil
	e.settle(errRemoved)
	e.checkUnused()
	return true
}

// settle records the reason why there is no device, or that there is one.
func (e *entry) settle(gone error) {
	e.gone = gone
	select {
	case <-e.settled:
	default:
		close(e.settled)
	}
}

// added reports whether the entry has its device.
func (e *entry) added() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.device != nil
}
