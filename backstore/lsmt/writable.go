package lsmt

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/reprise-containers/reprise/remote/blob"
)

// maxLogRecords is how many records overlaybd accepts in an index log.
const maxLogRecords = 128_000_000

// OpenWritable opens a layer that was not sealed, as it is now, for reading:
// data is its data file, index its index file. A sparse layer keeps its index
// in the holes of data, which must implement Sparse then; its index file is
// empty and may be nil. What is written to the files later is not seen.
//
// After a crash the index log of an append-only layer can point to data that
// never reached the disk. Overlaybd refuses such a layer. OpenWritable takes
// the log up to the first such record, which is the state of some moment
// before the crash, after the last flush; Layer.Dropped tells how many records
// it left out.
func OpenWritable(ctx context.Context, data, index blob.ReaderAt) (*Layer, error) {
	l, err := openWritable(ctx, data, index)
	if err != nil {
		return nil, fmt.Errorf("opening writable layer %s: %w", blob.Name(data), err)
	}
	return l, nil
}

func openWritable(ctx context.Context, data, index blob.ReaderAt) (*Layer, error) {
	if data.Size() < HeaderSize {
		return nil, fmt.Errorf("%w: %d bytes are less than a header", ErrFormat, data.Size())
	}
	h, err := readHeader(ctx, data, 0, "header")
	if err != nil {
		return nil, err
	}
	if !h.is(flagHeader|flagData, flagHeader|flagData|flagSealed) {
		return nil, fmt.Errorf("header: flags %#x are not those of a data file that is not sealed", h.flags)
	}
	if err := h.checkSize(); err != nil {
		return nil, err
	}
	l := &Layer{r: data, id: h.Identity, kind: "append-only"}
	if h.has(flagSparse) {
		l.kind = "sparse"
		return l, l.scanHoles()
	}
	if index == nil {
		return nil, errors.New("append-only layer without an index file")
	}
	if err := l.readLog(ctx, index); err != nil {
		return nil, fmt.Errorf("index file %s: %w", blob.Name(index), err)
	}
	return l, nil
}

// scanHoles builds the index of a sparse layer: sector n lies at byte 4096 +
// 512 n, and what the file system holds is mapped.
func (l *Layer) scanHoles() error {
	s, ok := l.r.(Sparse)
	if !ok {
		return fmt.Errorf("sparse layer: %T can't tell where its holes are", l.r)
	}
	for off := int64(HeaderSize); ; {
		start, end, err := s.NextData(off)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if end <= off || start < off {
			return fmt.Errorf("data from %d to %d reported after offset %d", start, end, off)
		}
		off = end
		first, last := uint64(start/SectorSize), uint64(end/SectorSize)
		for first < last {
			n := min(last-first, maxLength)
			if len(l.entries) >= MaxSegments {
				return fmt.Errorf("more than %d stretches of data", MaxSegments)
			}
			l.entries = append(l.entries, newEntry(first-firstSector, n, first, false))
			first += n
		}
	}
}

// readLog reads and replays the index log of an append-only layer. A partial
// record at its end is ignored, as are padding records anywhere.
func (l *Layer) readLog(ctx context.Context, index blob.ReaderAt) error {
	if index.Size() < HeaderSize {
		return fmt.Errorf("%w: %d bytes are less than a header", ErrFormat, index.Size())
	}
	h, err := readHeader(ctx, index, 0, "header")
	if err != nil {
		return err
	}
	switch records := (index.Size() - HeaderSize) / recordSize; {
	case !h.is(flagHeader, flagHeader|flagData|flagSealed):
		return fmt.Errorf("header: flags %#x are not those of an index file", h.flags)
	case h.indexOffset != HeaderSize:
		return fmt.Errorf("header: log starts at offset %d, want %d", h.indexOffset, HeaderSize)
	case records > maxLogRecords:
		return fmt.Errorf("log of %d records exceeds the limit of %d", records, maxLogRecords)
	default:
		return l.replay(ctx, index, records)
	}
}

// replay reads records of the log until one does not fit the data file.
func (l *Layer) replay(ctx context.Context, index blob.ReaderAt, records int64) error {
	limit := uint64(l.r.Size() / SectorSize)
	buf := make([]byte, min(records, recordsPiece)*recordSize)
	var log []entry
	for done := int64(0); done < records && l.dropped == 0; {
		raw := buf[:min(records-done, recordsPiece)*recordSize]
		if err := blob.ReadFull(ctx, index, raw, HeaderSize+done*recordSize); err != nil {
			return fmt.Errorf("reading log: %w", err)
		}
		for ; len(raw) > 0; raw = raw[recordSize:] {
			e, ok := decodeRecord(raw)
			if ok && checkRecord(e, limit) != nil {
				l.dropped = records - done
				break
			}
			if ok {
				log = append(log, e)
			}
			done++
		}
	}
	if len(log) > MaxSegments {
		return fmt.Errorf("log of %d records exceeds the limit of %d segments", len(log), MaxSegments)
	}
	l.entries = mergeLog(log)
	return nil
}
