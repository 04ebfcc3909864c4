package lsmt

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/reprise-containers/reprise/remote/blob"
)

const (
	indexUnit     = 256                               // an index is padded to a multiple of so many records
	maxCommitted  = maxRecords - maxRecords%indexUnit // records that still fit after padding
	pieceSectors  = 64                                // data is cut into records of 32 KiB, which are then merged
	copySize      = 1 << 20
	sectorsToCopy = copySize / SectorSize
)

// Commit writes a committed layer to w with everything l holds: the garbage of
// a log and the gaps of a sparse file are left out. Of id, empty fields are
// taken from the layer, except for UUID and Tag, which are then empty.
func (l *Layer) Commit(ctx context.Context, w io.Writer, id Identity) error {
	if id.VirtualSize == 0 {
		id.VirtualSize = l.id.VirtualSize
	}
	if id.Parent == "" {
		id.Parent = l.id.Parent
	}
	if err := commitEntries(ctx, w, id, slices.Values(l.entries), []blob.ReaderAt{l.r}); err != nil {
		return fmt.Errorf("committing layer %s: %w", l, err)
	}
	return nil
}

// Commit writes the merged layers of m as one committed layer to w. Zeroed
// segments stay, so m may be the upper part of an image.
func (m *Image) Commit(ctx context.Context, w io.Writer, id Identity) error {
	if id.VirtualSize == 0 {
		id.VirtualSize = m.size
	}
	if err := commitEntries(ctx, w, id, m.index.all(), m.files); err != nil {
		return fmt.Errorf("committing image: %w", err)
	}
	return nil
}

func commitEntries(ctx context.Context, w io.Writer, id Identity, entries iter.Seq[entry], files []blob.ReaderAt) error {
	c, err := newCommitter(w, id)
	if err != nil {
		return err
	}
	for e := range entries {
		if e.zeroed() {
			if err := c.zero(e.offset(), e.length()); err != nil {
				return err
			}
			continue
		}
		if err := c.copy(ctx, e, files[e.layer()]); err != nil {
			return err
		}
	}
	return c.finish()
}

// committer writes a committed layer front to back.
type committer struct {
	w      io.Writer
	id     Identity
	cursor uint64  // sector of the stream where the next data goes
	index  []entry // what was written
	buf    []byte
}

func newCommitter(w io.Writer, id Identity) (*committer, error) {
	id, err := id.canonical()
	if err != nil {
		return nil, err
	}
	h := header{Identity: id, flags: flagHeader | flagData | flagSealed}
	if _, err := w.Write(h.encode()); err != nil {
		return nil, fmt.Errorf("writing header: %w", err)
	}
	return &committer{w: w, id: id, cursor: firstSector, buf: make([]byte, copySize)}, nil
}

// zero records that length sectors from offset on read as zeros. The record
// maps to the place it would have, because readers insist on one.
func (c *committer) zero(offset, length uint64) error {
	for length > 0 {
		n := min(length, maxLength)
		if err := c.record(newEntry(offset, n, c.cursor, true)); err != nil {
			return err
		}
		offset, length = offset+n, length-n
	}
	return nil
}

// data writes p, whole sectors, as what the disk has from sector offset on.
func (c *committer) data(offset uint64, p []byte) error {
	for left := uint64(len(p) / SectorSize); left > 0; {
		n := min(left, pieceSectors)
		if err := c.record(newEntry(offset, n, c.cursor, false)); err != nil {
			return err
		}
		offset, left, c.cursor = offset+n, left-n, c.cursor+n
	}
	if _, err := c.w.Write(p); err != nil {
		return fmt.Errorf("writing data: %w", err)
	}
	return nil
}

// copy writes the data that e maps in r.
func (c *committer) copy(ctx context.Context, e entry, r blob.ReaderAt) error {
	for done := uint64(0); done < e.length(); {
		n := min(e.length()-done, sectorsToCopy)
		p := c.buf[:n*SectorSize]
		if err := blob.ReadFull(ctx, r, p, int64(e.mapped()+done)*SectorSize); err != nil {
			return fmt.Errorf("reading data: %w", err)
		}
		if err := c.data(e.offset()+done, p); err != nil {
			return err
		}
		done += n
	}
	return nil
}

// record adds e to the index, as part of the last entry where that is allowed.
func (c *committer) record(e entry) error {
	if n := len(c.index); n > 0 {
		last := c.index[n-1]
		if last.end() == e.offset() && last.mappedEnd() == e.mapped() &&
			last.zeroed() == e.zeroed() && last.length()+e.length() < maxLength {
			c.index[n-1].key += e.length()
			return nil
		}
	}
	if len(c.index) >= maxCommitted {
		return fmt.Errorf("layer needs more than the %d records the format allows", maxCommitted)
	}
	c.index = append(c.index, e)
	return nil
}

// finish writes index and trailer.
func (c *committer) finish() error {
	records := (len(c.index) + indexUnit - 1) / indexUnit * indexUnit
	raw := make([]byte, 0, records*recordSize)
	for _, e := range c.index {
		raw = appendRecord(raw, e)
	}
	for range records - len(c.index) {
		raw = appendRecord(raw, newEntry(invalid, 0, 0, false))
	}
	h := header{
		Identity:    c.id,
		flags:       flagData | flagSealed,
		indexOffset: c.cursor * SectorSize,
		records:     uint64(records),
	}
	if _, err := c.w.Write(append(raw, h.encode()...)); err != nil {
		return fmt.Errorf("writing index: %w", err)
	}
	return nil
}
