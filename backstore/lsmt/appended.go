package lsmt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
)

// errLogFull says that the index log can't grow. The kernel hears ENOSPC.
var errLogFull = fmt.Errorf("index log has the %d records that overlaybd reads: %w", maxLogRecords, syscall.ENOSPC)

// atomicSectors is how many sectors disks write at once, at most.
const atomicSectors = 4096 / SectorSize

// era is a time in which reads start. What dies in it may be in use by reads
// that started in it or before, but by none that starts later.
type era struct {
	reads   atomic.Int64 // that started in it and have not ended
	dead    deadList
	records int64 // in the log at its end
}

// appended is the body of an append-only layer: new data goes to the end of
// the data file, and a record about it to the end of the index log.
type appended struct {
	u       *Upper
	data    hostFile
	log     indexLog
	name    string
	id      Identity // guarded by u.mu
	unit    uint64   // sectors of a host block
	boot    []byte
	dropped int64
	written uint64 // sector of the data file behind all that is published; guarded by log.mu

	alloc   sync.Mutex
	next    uint64 // sector of the data file where the next data goes
	aligned uint64 // where it was at the last flush

	reclaim reclaimer
}

func (a *appended) String() string     { return a.name }
func (a *appended) identity() Identity { return a.id }
func (a *appended) flags() uint32      { return flagData | flagSealed }
func (a *appended) end() int64         { return int64(a.next) * SectorSize }
func (a *appended) stackable() error   { return nil }
func (a *appended) move(u *Upper)      { a.u = u }

// tidy implements body.
func (a *appended) tidy() {
	a.u.mu.RLock()
	live := a.u.index.stored
	a.u.mu.RUnlock()
	a.reclaim.free(live)
}

// write implements body. The data goes to a place of its own, so nobody waits
// for it; then record and index change together, in the order of the log.
func (a *appended) write(_ context.Context, p []byte, off int64) error {
	n := uint64(len(p) / SectorSize)
	at, err := a.allocate(n)
	if err != nil {
		return err
	}
	if _, err = a.data.WriteAt(p, int64(at)*SectorSize); err == nil {
		err = a.publish(newEntry(uint64(off/SectorSize), n, at, false))
	}
	if err != nil {
		a.giveBack(at, n)
	}
	return err
}

// allocate returns the sector of the data file where n sectors go.
func (a *appended) allocate(n uint64) (uint64, error) {
	a.alloc.Lock()
	defer a.alloc.Unlock()
	if a.next == a.aligned {
		// What is durable is not written again, not even as the rest of a
		// block: a power cut could take it along.
		a.next = (a.next + atomicSectors - 1) / atomicSectors * atomicSectors
	}
	if a.next+n > mappedMask {
		return 0, fmt.Errorf("data file is full: %w", syscall.ENOSPC)
	}
	at := a.next
	a.next += n
	return at, nil
}

// giveBack frees sectors that nothing was made of. They stay unused if others
// have been allocated after them.
func (a *appended) giveBack(at, n uint64) {
	a.alloc.Lock()
	if a.next == at+n {
		a.next = at
		n = 0
	}
	a.alloc.Unlock()
	if n > 0 {
		a.u.mu.Lock()
		a.u.era.dead.add(at, n)
		a.u.mu.Unlock()
	}
}

// discard implements body.
func (a *appended) discard(ctx context.Context, off, n int64) error {
	for first, left := uint64(off/SectorSize), uint64(n/SectorSize); left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		length := min(left, maxLength)
		// The record needs a place that exists, whatever becomes of writes at work.
		if err := a.publish(newEntry(first, length, 0, true)); err != nil {
			return err
		}
		first, left = first+length, left-length
	}
	return nil
}

// publish writes the record of e, and has reads see it.
func (a *appended) publish(e entry) error {
	a.log.mu.Lock()
	defer a.log.mu.Unlock()
	if e.zeroed() {
		e.to |= a.written
	}
	if a.u.full() {
		return errSegments
	}
	if err := a.log.append(e); err != nil {
		return err
	}
	a.written = max(a.written, e.mappedEnd())
	a.u.mu.Lock()
	defer a.u.mu.Unlock()
	a.u.index.put(e, a.u.era.dead.add)
	return nil
}

// flush implements body.
func (a *appended) flush() error {
	last := a.endEra()
	if last.records == a.log.durable {
		a.reclaim.push(last)
		return nil
	}
	if err := a.data.sync(); err != nil {
		return lastingError{err}
	}
	if err := a.mark(last.records); err != nil {
		return err
	}
	if err := a.log.file.sync(); err != nil {
		return lastingError{err}
	}
	a.reclaim.push(last)
	return a.compact()
}

// endEra starts a new era and returns the one before, with the number of
// records that there are.
func (a *appended) endEra() *era {
	a.log.mu.Lock()
	defer a.log.mu.Unlock()
	a.alloc.Lock()
	a.aligned = a.next
	a.alloc.Unlock()
	a.u.mu.Lock()
	defer a.u.mu.Unlock()
	last := a.u.era
	last.records = a.log.records
	a.u.era = &era{}
	return last
}

// mark appends the mark that the data of n records is durable.
func (a *appended) mark(n int64) error {
	a.log.mu.Lock()
	defer a.log.mu.Unlock()
	atEnd := a.log.records == n
	if err := a.log.mark(n); err != nil {
		return err
	}
	a.log.durable = n
	if atEnd {
		a.log.durable = a.log.records // a mark needs no other
	}
	return nil
}

// finish implements body.
func (a *appended) finish() error {
	if err := a.log.trim(); err != nil {
		return err
	}
	return a.log.setSession(session{})
}

// grow implements body.
func (a *appended) grow(_ context.Context, size int64) error {
	id := a.id
	id.VirtualSize = size
	h := header{Identity: id, flags: flagHeader | flagData}
	if err := writeHeader(a.data, h); err != nil {
		return err
	}
	h.flags, h.indexOffset = flagHeader, HeaderSize
	if err := writeHeader(a.log.file, h); err != nil {
		return err
	}
	a.id = id
	return nil
}

// writeHeader rewrites the header of a file, all but its last sector, durably.
func writeHeader(f hostFile, h header) error {
	if _, err := f.WriteAt(h.encode()[:sessionOffset], 0); err != nil {
		return fmt.Errorf("writing header: %w", err)
	}
	return f.sync()
}

// layer implements body.
func (a *appended) layer(entries []entry) *Layer {
	return &Layer{
		r:       &reader{hostFile: a.data, name: a.name, n: a.end()},
		id:      a.id,
		kind:    "append-only",
		entries: entries,
	}
}

// count implements body.
func (a *appended) count(s *UpperStats) {
	a.log.mu.Lock()
	s.Records, s.Dropped = a.log.records, a.dropped
	a.log.mu.Unlock()
	s.Dead, s.Freed = a.reclaim.dead(), a.reclaim.freed.Load()
	s.Data, _ = a.data.allocated()
}

// close implements body.
func (a *appended) close() error {
	return errors.Join(a.log.file.Close(), a.data.Close())
}
