package lsmt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// compactAt is how many records an index log has at least, and how many times
// as many as there are segments, before it is written anew.
const (
	compactAt    = 64 << 10
	compactTimes = 8
)

// openAppended reads the index log of an append-only layer.
func (u *Upper) openAppended(ctx context.Context, data, index hostFile, files UpperFiles, id Identity) (body, error) {
	size, err := data.size()
	if err != nil {
		return nil, err
	}
	logSize, err := index.size()
	if err != nil {
		return nil, err
	}
	unit, err := data.block()
	if err != nil {
		return nil, err
	}
	log, err := readLog(ctx, &reader{hostFile: index, name: files.Index, n: logSize}, size)
	if err != nil {
		return nil, fmt.Errorf("index file %s: %w", files.Index, err)
	}
	a := &appended{
		u: u, data: data, name: files.Data, id: id,
		unit:    uint64(unit / SectorSize),
		dropped: log.dropped,
		written: log.end,
		next:    log.end,
		aligned: log.end,
		log: indexLog{
			file: index, path: files.Index,
			records: log.records, real: log.records, ahead: log.records,
		},
	}
	a.reclaim.file, a.reclaim.unit = data, a.unit
	u.index, u.file = log.index, data
	return a, nil
}

// start implements body. What the log says is made true on the disk before
// anything is built on it: the records that do not count go first, because the
// data that they point to is about to be written over; then all that counts is
// made durable; then a session begins.
func (a *appended) start() error {
	boot, err := bootID()
	if err != nil {
		return fmt.Errorf("identifying this boot: %w", err)
	}
	if err := a.log.trim(); err != nil {
		return err
	}
	if err := a.log.file.sync(); err != nil {
		return err
	}
	if size, err := a.data.size(); err != nil {
		return err
	} else if size != a.end() {
		if err := a.data.truncate(a.end()); err != nil {
			return err
		}
	}
	if err := a.data.sync(); err != nil {
		return err
	}
	a.boot, a.log.durable = boot, a.log.records
	if err := a.log.setSession(session{boot: boot, records: a.log.records}); err != nil {
		return err
	}
	if err := a.compact(); err != nil {
		return err
	}
	return a.scrub()
}

// compact writes the index log anew if most of it is dead. It is called by a
// flush, or before there are any. If there is no room, the old one stays.
func (a *appended) compact() error {
	a.log.mu.Lock()
	defer a.log.mu.Unlock()
	if a.log.records < compactAt || a.log.records/compactTimes < int64(a.u.index.n) {
		return nil
	}
	// The index has what was written since the flush, too.
	if err := a.data.sync(); err != nil {
		return lastingError{err}
	}
	file, err := a.writeLog(a.log.path + ".new")
	if err != nil {
		return nil //nolint:nilerr // nothing has changed
	}
	if err := os.Rename(a.log.path+".new", a.log.path); err != nil {
		os.Remove(a.log.path + ".new")
		return file.Close()
	}
	old := a.log.file
	a.log.file = file
	a.log.records = int64(a.u.index.n)
	a.log.real, a.log.ahead, a.log.durable = a.log.records, a.log.records, a.log.records
	err = old.Close()
	if syncErr := syncDir(a.log.path); syncErr != nil {
		// After a power cut the old log may be there again, without what
		// comes now.
		return lastingError{syncErr}
	}
	return err
}

// writeLog writes what the index has to the new index file path, durably.
// Callers hold a.log.mu, without which the index doesn't change.
func (a *appended) writeLog(path string) (hostFile, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	h := header{Identity: a.id, flags: flagHeader, indexOffset: HeaderSize}
	raw := h.encode()
	copy(raw[sessionOffset:], session{boot: a.boot, records: int64(a.u.index.n)}.encode())
	if err := createFile(path, raw, HeaderSize); err != nil {
		return nil, err
	}
	file, err := openHostFile(path)
	if err == nil {
		err = writeRecords(file, HeaderSize, slices.Values(a.u.index.entries()))
		if err == nil {
			err = file.sync()
		}
		if err != nil {
			file.Close()
		}
	}
	if err != nil {
		os.Remove(path)
		return nil, err
	}
	return file, nil
}

// scrub frees the data that nothing maps to, if that is worth it: reclaimers
// before may have left some. All is durable.
func (a *appended) scrub() error {
	taken, err := a.data.allocated()
	if err != nil {
		return err
	}
	if taken-int64(a.u.index.stored)*SectorSize < reclaimStep*SectorSize {
		return nil
	}
	used := make([]span, 0, a.u.index.n)
	for e := range a.u.index.from(0) {
		if !e.zeroed() {
			used = append(used, span{e.mapped(), e.length()})
		}
	}
	slices.SortFunc(used, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	at := uint64(firstSector)
	for _, s := range append(used, span{a.next, 0}) {
		if err := a.scrubGap(at, s.start); err != nil {
			return nil //nolint:nilerr // the data stays where it is
		}
		at = max(at, s.start+s.n)
	}
	return nil
}

// scrubGap frees the sectors from start up to end, where they are taken.
func (a *appended) scrubGap(start, end uint64) error {
	if start+a.unit > end {
		return nil
	}
	for off, stop := int64(start)*SectorSize, int64(end)*SectorSize; off < stop; {
		from, to, err := a.data.nextData(off, stop)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := a.reclaim.punch(uint64(from/SectorSize), uint64(to/SectorSize)); err != nil {
			return err
		}
		off = to
	}
	return nil
}
