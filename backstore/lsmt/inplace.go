package lsmt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
)

// inplace is the body of a sparse layer: sector n of the disk lies at byte 4096
// + 512 n of the data file, and the file system's own map of holes is the index.
//
// It knows blocks only, not sectors. So a write of a part of a block that is a
// hole takes the rest along from below, and a discard punches holes only where
// nothing is below, and writes zeros elsewhere. Both are what readers of the
// format that know nothing of it read right.
type inplace struct {
	u           *Upper
	data, index hostFile
	name        string
	id          Identity
	unit        int64 // bytes of a host block
	ranges      rangeLock
	dirty       atomic.Bool
}

const zerosPiece = 64 << 10

//nolint:gochecknoglobals // a constant that Go can't express
var zerosToWrite [zerosPiece]byte

// openSparse finds out where the data file of a sparse layer has data.
func (u *Upper) openSparse(data, index hostFile, files UpperFiles, id Identity) (body, error) {
	unit, err := data.block()
	if err != nil {
		return nil, err
	}
	size, err := data.size()
	if err != nil {
		return nil, err
	}
	if whole := HeaderSize + id.VirtualSize; size < whole {
		// First, because what is behind the end of a file is not yet a hole.
		if size = whole; data.truncate(size) != nil {
			return nil, fmt.Errorf("data file is shorter than its disk of %d bytes, and can't be made longer", id.VirtualSize)
		}
	}
	// A write that the host's end has overtaken may leave an extent that was allocated
	// and never written. It is a hole, but only until somebody reads it, if only ahead of
	// what is wanted, as of the header just now: for the zeros that are then in memory,
	// the kernel calls it data, and those would hide what is below.
	if err := data.forget(); err != nil {
		return nil, err
	}
	l := &Layer{r: &reader{hostFile: data, name: files.Data, n: size}, id: id}
	if err := l.scanHoles(); err != nil {
		return nil, err
	}
	for _, e := range l.entries {
		u.index.put(e, nil)
	}
	u.file = data
	return &inplace{u: u, data: data, index: index, name: files.Data, id: id, unit: unit}, nil
}

func (s *inplace) String() string     { return s.name }
func (s *inplace) identity() Identity { return s.id }
func (s *inplace) flags() uint32      { return flagData | flagSealed | flagSparse }
func (s *inplace) end() int64         { return HeaderSize + s.id.VirtualSize }
func (s *inplace) move(u *Upper)      { s.u = u }
func (s *inplace) tidy()              {}
func (s *inplace) finish() error      { return nil }

// stackable implements body. The header takes a block, the rest of which would
// read as zeros.
func (s *inplace) stackable() error {
	if s.unit > HeaderSize {
		return fmt.Errorf("a sparse layer on a file system with blocks of %d bytes hides what is below its header; an append-only layer does not", s.unit)
	}
	return nil
}

// start implements body: it cuts off what sealing may have left.
func (s *inplace) start() error {
	size, err := s.data.size()
	if err == nil && size != s.end() {
		if err = s.data.truncate(s.end()); err == nil {
			err = s.data.sync()
		}
	}
	return err
}

// blocks returns the blocks that n bytes at off lie in, up to the end of the
// disk.
func (s *inplace) blocks(off, n int64) (start, end int64) {
	start, end = off-off%s.unit, off+n
	end += (s.unit - end%s.unit) % s.unit
	return start, min(end, s.u.Size())
}

// write implements body.
func (s *inplace) write(ctx context.Context, p []byte, off int64) error {
	start, end := s.blocks(off, int64(len(p)))
	unlock, err := s.ranges.lock(ctx, start, end)
	if err != nil {
		return err
	}
	defer unlock()
	if s.u.full() {
		return errSegments
	}
	defer s.dirty.Store(true) // last: a flush meanwhile may have missed a part
	if err := s.place(ctx, p, off); err != nil {
		return errors.Join(err, s.undo(start, end))
	}
	s.publish(start, end)
	return nil
}

// place writes p, with what is around it in blocks that are holes.
func (s *inplace) place(ctx context.Context, p []byte, off int64) error {
	for len(p) > 0 {
		start, end := s.blocks(off, 1)
		n := min(end-off, int64(len(p)))
		whole := off == start && n == end-start
		if whole {
			// All whole blocks at once, and a last part that needs nothing.
			last := off + int64(len(p))
			if tail := last - last%s.unit; last < s.u.Size() && tail < last && !s.covered(s.blocks(tail, 1)) {
				last = tail
			}
			n = last - off
		} else if !s.covered(start, end) {
			if err := s.compose(ctx, p[:n], off, start, end); err != nil {
				return err
			}
			p, off = p[n:], off+n
			continue
		}
		if err := s.pwrite(p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// pwrite writes p to off on the disk.
func (s *inplace) pwrite(p []byte, off int64) error {
	if _, err := s.data.WriteAt(p, HeaderSize+off); err != nil {
		return fmt.Errorf("writing data file: %w", err)
	}
	if len(p) >= earlyBytes {
		s.data.start(HeaderSize+off, int64(len(p)))
	}
	return nil
}

// compose writes the block from start up to end as it is, with p at off.
func (s *inplace) compose(ctx context.Context, p []byte, off, start, end int64) error {
	if s.u.beneath() == nil {
		return s.pwrite(p, off)
	}
	block := make([]byte, end-start)
	if err := s.u.read(ctx, block, start); err != nil {
		return err
	}
	copy(block[off-start:], p)
	return s.pwrite(block, start)
}

// covered reports whether a block, from start up to end, is none with a hole.
func (s *inplace) covered(start, end int64) bool {
	for start < end {
		kind, stop := s.u.lockedStep(start, end)
		if kind != partData {
			return false
		}
		start = stop
	}
	return true
}

// publish has reads see the data of blocks.
func (s *inplace) publish(start, end int64) {
	s.u.mu.Lock()
	defer s.u.mu.Unlock()
	for first, last := uint64(start/SectorSize), uint64(end/SectorSize); first < last; {
		n := min(last-first, maxLength)
		s.u.index.put(newEntry(first, n, first+firstSector, false), nil)
		first += n
	}
}

// undo makes holes again of the blocks that were holes, after a write of them
// failed: a block that was written in part would hide what is below.
func (s *inplace) undo(start, end int64) error {
	for start < end {
		kind, stop := s.u.lockedStep(start, end)
		if kind != partData {
			if err := s.punch(start, stop); err != nil {
				// The layer reads right as long as it is open, and only so long.
				s.u.flush.fail(err)
				return err
			}
		}
		start = stop
	}
	return nil
}

// punch makes a hole of whole blocks.
func (s *inplace) punch(start, end int64) error {
	if rest := end % s.unit; rest != 0 { // the last block of the disk
		end += s.unit - rest
	}
	return s.data.punch(HeaderSize+start, end-start)
}

// discard implements body.
func (s *inplace) discard(ctx context.Context, off, n int64) error {
	start, end := s.blocks(off, n)
	unlock, err := s.ranges.lock(ctx, start, end)
	if err != nil {
		return err
	}
	defer unlock()
	if s.u.full() {
		return errSegments
	}
	defer s.dirty.Store(true) // last: a flush meanwhile may have missed a part
	if stop := off + n; off != start || stop != end {
		// Parts of blocks, at both ends.
		head := min(start+s.unit, end)
		if off == start {
			head = start
		}
		tail := max(end-(end-1)%s.unit-1, head)
		if stop == end {
			tail = end
		}
		for _, part := range [2][2]int64{{off, min(head, stop)}, {max(tail, off), stop}} {
			if err := s.clear(ctx, part[0], part[1]); err != nil {
				return err
			}
		}
		start, end = head, tail
	}
	return s.clearBlocks(ctx, start, end)
}

// clear writes zeros to a part of a block, unless it reads as zeros.
func (s *inplace) clear(ctx context.Context, off, stop int64) error {
	if off >= stop {
		return nil
	}
	start, end := s.blocks(off, 1)
	if s.covered(start, end) {
		return s.zero(off, stop)
	}
	from, _, err := nextDataOf(s.u.lockedStep, s.u.beneath(), off, s.u.Size())
	if errors.Is(err, io.EOF) || err == nil && from >= stop {
		return nil
	}
	if err == nil {
		err = s.compose(ctx, make([]byte, stop-off), off, start, end)
	}
	if err != nil {
		return errors.Join(err, s.undo(start, end))
	}
	s.publish(start, end)
	return nil
}

// clearBlocks makes whole blocks read as zeros: holes where nothing is below,
// zeros elsewhere.
func (s *inplace) clearBlocks(ctx context.Context, start, end int64) error {
	for start < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		from, to, err := s.below(start, end)
		if err != nil {
			return err
		}
		if start < from {
			if err := s.punch(start, from); err != nil {
				return err
			}
			s.u.mu.Lock()
			s.u.index.cut(uint64(start/SectorSize), uint64(from/SectorSize), nil)
			s.u.mu.Unlock()
		}
		to = min(to, from+maxWrite)
		if err := s.zero(from, to); err != nil {
			return errors.Join(err, s.undo(from, to))
		}
		s.publish(from, to)
		start = to
	}
	return nil
}

// below returns the blocks of the first data that lies below start up to end;
// both are end if there is none.
func (s *inplace) below(start, end int64) (from, to int64, err error) {
	lower := s.u.beneath()
	if lower == nil {
		return end, end, nil
	}
	from, to, err = nextData(lower, start)
	if errors.Is(err, io.EOF) || err == nil && from >= end {
		return end, end, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("asking what is below: %w", err)
	}
	from, to = s.blocks(from, to-from)
	return max(from, start), min(to, end), nil
}

// zero writes zeros from start up to end.
func (s *inplace) zero(start, end int64) error {
	for start < end {
		n := min(end-start, zerosPiece)
		if err := s.pwrite(zerosToWrite[:n], start); err != nil {
			return err
		}
		start += n
	}
	return nil
}

// flush implements body.
func (s *inplace) flush() error {
	if !s.dirty.Swap(false) {
		return nil
	}
	if err := s.data.sync(); err != nil {
		return lastingError{err}
	}
	return nil
}

// grow implements body.
func (s *inplace) grow(ctx context.Context, size int64) error {
	id := s.id
	id.VirtualSize = size
	if err := s.data.truncate(HeaderSize + size); err != nil {
		return err
	}
	if err := s.growTail(ctx, size); err != nil {
		return err
	}
	if err := writeHeader(s.data, header{Identity: id, flags: flagHeader | flagData | flagSparse}); err != nil {
		return err
	}
	s.id = id
	return nil
}

// growTail takes care of the block in which the disk ended, if the layer has it
// and there is more below: the rest of it is no hole.
func (s *inplace) growTail(ctx context.Context, size int64) error {
	old := s.u.Size()
	start := old - old%s.unit
	lower := s.u.beneath()
	if start == old || size == old || lower == nil || lower.Size() <= old || !s.covered(start, old) {
		return nil
	}
	end := min(start+s.unit, size)
	rest := make([]byte, end-old)
	if err := readPadded(ctx, lower, rest, old); err != nil {
		return err
	}
	if err := s.pwrite(rest, old); err != nil {
		return err
	}
	s.publish(start, end)
	return nil
}

// layer implements body.
func (s *inplace) layer(entries []entry) *Layer {
	return &Layer{
		r:       &reader{hostFile: s.data, name: s.name, n: s.end()},
		id:      s.id,
		kind:    "sparse",
		entries: entries,
	}
}

// count implements body.
func (s *inplace) count(stats *UpperStats) {
	stats.Sparse = true
	stats.Data, _ = s.data.allocated()
}

// close implements body.
func (s *inplace) close() error { return errors.Join(s.index.Close(), s.data.Close()) }
