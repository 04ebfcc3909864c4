package lsmt

import (
	"context"
	"io"

	"github.com/reprise-containers/reprise/remote/blob"
)

// tier is an index, the file it maps to, and what shows through its gaps.
type tier struct {
	index live
	file  hostFile
	lower blob.ReaderAt // nil if there is nothing below
}

// look has v describe the first bytes of p, which is at off on the disk, and
// returns how many.
func (t *tier) look(v *view, p []byte, off int64) int {
	v.file, v.lower, v.n = t.file, t.lower, 0
	at, rest := off, p
	add := func(kind partKind, from, n int64) {
		n = min(n, int64(len(rest)))
		v.parts[v.n] = part{kind, from, rest[:n]}
		v.n++
		at, rest = at+n, rest[n:]
	}
	for e := range t.index.from(uint64(off) / SectorSize) {
		if start := int64(e.offset()) * SectorSize; at < start && len(rest) > 0 && v.n < partsAtOnce {
			add(partBelow, at, start-at)
		}
		if len(rest) == 0 || v.n == partsAtOnce {
			return len(p) - len(rest)
		}
		left := int64(e.end())*SectorSize - at
		if e.zeroed() {
			add(partZero, 0, left)
		} else {
			add(partData, at+(int64(e.mapped())-int64(e.offset()))*SectorSize, left)
		}
	}
	if len(rest) > 0 && v.n < partsAtOnce {
		add(partBelow, at, int64(len(rest)))
	}
	return len(p) - len(rest)
}

// step says what the disk is made of from off on, and up to where.
func (t *tier) step(off, size int64) (kind partKind, end int64) {
	kind, end = partBelow, size
	if e, ok := t.index.at(t.index.find(uint64(off) / SectorSize)); ok {
		start := int64(e.offset()) * SectorSize
		switch {
		case start > off:
			end = start
		case e.zeroed():
			kind, end = partZero, int64(e.end())*SectorSize
		default:
			kind, end = partData, int64(e.end())*SectorSize
		}
	}
	return kind, min(end, size)
}

// stepper is what nextDataOf and presentIn walk along.
type stepper func(off, size int64) (kind partKind, end int64)

// nextDataOf is Sparse.NextData of a disk of size bytes over lower.
func nextDataOf(step stepper, lower blob.ReaderAt, off, size int64) (start, end int64, err error) {
	for off >= 0 && off < size {
		kind, end := step(off, size)
		switch {
		case kind == partData:
			return off, end, nil
		case kind == partBelow && lower != nil:
			start, stop, err := nextData(lower, off)
			if err != nil && err != io.EOF { //nolint:errorlint // as Sparse says
				return 0, 0, err
			}
			if err == nil && start < end {
				return max(start, off), min(stop, end), nil
			}
		}
		off = end
	}
	return 0, 0, io.EOF
}

// presentIn is blob.Presence of a disk of size bytes over lower.
func presentIn(step stepper, lower blob.ReaderAt, off, n, size int64) bool {
	if off < 0 || n < 0 || n > size-off {
		return false
	}
	for end := off + n; off < end; {
		kind, next := step(off, size)
		next = min(next, end)
		if kind == partBelow && lower != nil {
			if stop := min(next, lower.Size()); off < stop && !blob.Present(lower, off, stop-off) {
				return false
			}
		}
		off = next
	}
	return true
}

// overlaid is a layer that Restack has sealed, with what lies below it: what
// the new one lies on.
type overlaid struct {
	tier
	disk int64
}

// Size implements blob.ReaderAt.
func (o *overlaid) Size() int64 { return o.disk }

// ReadAt implements blob.ReaderAt.
func (o *overlaid) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	var end error
	if int64(len(p)) > o.disk-off {
		p, end = p[:max(o.disk-off, 0)], io.EOF
	}
	var v view
	for read := 0; read < len(p); {
		n := o.look(&v, p[read:], off+int64(read))
		if err := v.fill(ctx); err != nil {
			return 0, err
		}
		read += n
	}
	return len(p), end
}

// NextData implements Sparse.
func (o *overlaid) NextData(off int64) (start, end int64, err error) {
	return nextDataOf(o.step, o.lower, off, o.disk)
}

// Present implements blob.Presence.
func (o *overlaid) Present(off, n int64) bool { return presentIn(o.step, o.lower, off, n, o.disk) }

// lockedStep is tier.step of an Upper, and below what is below it.
func (u *Upper) lockedStep(off, size int64) (kind partKind, end int64) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.step(off, size)
}

func (u *Upper) beneath() blob.ReaderAt {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.lower
}

// NextData implements Sparse. What changes meanwhile may be in it or not.
func (u *Upper) NextData(off int64) (start, end int64, err error) {
	return nextDataOf(u.lockedStep, u.beneath(), off, u.Size())
}

// Present implements blob.Presence: what was written is local.
func (u *Upper) Present(off, n int64) bool {
	return presentIn(u.lockedStep, u.beneath(), off, n, u.Size())
}
