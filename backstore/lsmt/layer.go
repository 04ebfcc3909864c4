package lsmt

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/reprise-containers/reprise/remote/blob"
)

// Layer is one opened layer, to be given to Stack. It is immutable.
type Layer struct {
	r       blob.ReaderAt
	id      Identity
	kind    string
	entries []entry
	dropped int64
}

const (
	firstSector  = HeaderSize / SectorSize
	maxRecords   = 1_000_000
	recordsPiece = 1 << 16 // records read at once: 1 MiB
)

// Open opens a committed or sealed layer whose stream is r. It reads header
// and trailer, in parallel, and then the index. The error wraps ErrFormat if r
// is not an LSMT file at all.
func Open(ctx context.Context, r blob.ReaderAt) (*Layer, error) {
	l, err := open(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("opening lsmt layer %s: %w", blob.Name(r), err)
	}
	return l, nil
}

func open(ctx context.Context, r blob.ReaderAt) (*Layer, error) {
	if r.Size() < 2*HeaderSize {
		return nil, fmt.Errorf("%w: %d bytes are less than header and trailer", ErrFormat, r.Size())
	}
	head, tail, err := readEnds(ctx, r)
	if err != nil {
		return nil, err
	}
	at := r.Size() - HeaderSize
	switch {
	case !head.is(flagHeader|flagData, flagHeader|flagData):
		return nil, fmt.Errorf("header: flags %#x are not those of a data file's header", head.flags)
	case !tail.is(flagData|flagSealed, flagHeader|flagData|flagSealed):
		return nil, fmt.Errorf("trailer at offset %d: flags %#x are not those of a sealed data file's trailer", at, tail.flags)
	case tail.records > maxRecords:
		return nil, fmt.Errorf("trailer at offset %d: index of %d records exceeds the limit of %d", at, tail.records, maxRecords)
	case tail.indexOffset > uint64(at) || tail.records*recordSize > uint64(at)-tail.indexOffset:
		return nil, fmt.Errorf("trailer at offset %d: index of %d records at offset %d ends after it", at, tail.records, tail.indexOffset)
	}
	if err := tail.checkSize(); err != nil {
		return nil, fmt.Errorf("trailer at offset %d: %w", at, err)
	}
	l := &Layer{r: r, id: tail.Identity, kind: kindOf(head, tail)}
	if err := l.readIndex(ctx, tail); err != nil {
		return nil, fmt.Errorf("index at offset %d: %w", tail.indexOffset, err)
	}
	return l, nil
}

// readEnds reads header and trailer at once, because each is a round trip
// where nothing is cached. What is wrong with the header counts first: it
// tells a damaged layer from something else.
func readEnds(ctx context.Context, r blob.ReaderAt) (head, tail *header, err error) {
	var wg sync.WaitGroup
	var tailErr error
	wg.Go(func() { tail, tailErr = readHeader(ctx, r, r.Size()-HeaderSize, "trailer") })
	head, err = readHeader(ctx, r, 0, "header")
	wg.Wait()
	if err == nil {
		err = tailErr
	}
	return head, tail, err
}

func readHeader(ctx context.Context, r blob.ReaderAt, off int64, what string) (*header, error) {
	b := make([]byte, HeaderSize)
	if err := blob.ReadFull(ctx, r, b, off); err != nil {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	h, err := decodeHeader(b)
	if off == 0 && errors.Is(err, errMagic) {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s at offset %d: %w", what, off, err)
	}
	return h, nil
}

func kindOf(head, tail *header) string {
	switch {
	case head.has(flagSealed):
		return "committed"
	case tail.has(flagSparse):
		return "sealed sparse"
	}
	return "sealed"
}

// readIndex reads the records in pieces and keeps those that are not padding:
// an index of nothing but padding compresses to nothing and must not cost
// memory.
func (l *Layer) readIndex(ctx context.Context, tail *header) error {
	c := indexChecker{limit: tail.indexOffset / SectorSize}
	left, off := tail.records, int64(tail.indexOffset)
	buf := make([]byte, min(left, recordsPiece)*recordSize)
	for left > 0 {
		raw := buf[:min(left, recordsPiece)*recordSize]
		if err := blob.ReadFull(ctx, l.r, raw, off); err != nil {
			return fmt.Errorf("reading records: %w", err)
		}
		left -= uint64(len(raw) / recordSize)
		off += int64(len(raw))
		for ; len(raw) > 0; raw = raw[recordSize:] {
			e, ok := decodeRecord(raw)
			if !ok {
				continue
			}
			if err := c.check(e); err != nil {
				return fmt.Errorf("record %d: %w", len(l.entries), err)
			}
			l.entries = append(l.entries, e)
		}
	}
	return nil
}

// indexChecker checks the records of one layer in order.
type indexChecker struct {
	end   uint64 // of the record before, in sectors of the disk
	limit uint64 // sector after the data, in sectors of the stream
}

func (c *indexChecker) check(e entry) error {
	if e.offset() < c.end {
		return fmt.Errorf("sector %d does not lie after sector %d, where the record before ends", e.offset(), c.end)
	}
	c.end = e.end()
	return checkRecord(e, c.limit)
}

// checkRecord checks what e says by itself: that it covers sectors, all of
// which a record can name, because merging may cut it anywhere, and that it
// maps to sectors between the header and limit. Zeroed records map to nothing,
// yet must name a place there.
func checkRecord(e entry, limit uint64) error {
	if e.length() == 0 {
		return fmt.Errorf("length at sector %d is 0", e.offset())
	}
	if e.end() > invalid {
		return fmt.Errorf("%d sectors at sector %d end after the last that a record can name", e.length(), e.offset())
	}
	lowest, highest := uint64(firstSector), limit
	if e.mapped() < lowest || e.mapped() > highest || e.mappedEnd() > highest {
		return fmt.Errorf("mapped sectors %d to %d are not within %d and %d, where the data lies", e.mapped(), e.mappedEnd(), lowest, highest)
	}
	return nil
}

// Size returns the size of the layer's stream in bytes.
func (l *Layer) Size() int64 { return l.r.Size() }

// Identity returns what the layer says about itself.
func (l *Layer) Identity() Identity { return l.id }

// Kind returns committed, sealed, sealed sparse, append-only or sparse.
func (l *Layer) Kind() string { return l.kind }

// Dropped returns how many records of an append-only index log were ignored,
// from the first on that points outside the data file: after a crash the log
// may have reached the disk without the data.
func (l *Layer) Dropped() int64 { return l.dropped }

// Len returns the number of segments.
func (l *Layer) Len() int { return len(l.entries) }

// Segments returns the layer's segments in order; Layer is 0 in all of them.
func (l *Layer) Segments() iter.Seq[Segment] { return segments(slices.Values(l.entries)) }

// String names the layer in errors.
func (l *Layer) String() string { return blob.Name(l.r) }

func segments(entries iter.Seq[entry]) iter.Seq[Segment] {
	return func(yield func(Segment) bool) {
		for e := range entries {
			if !yield(e.segment()) {
				return
			}
		}
	}
}
