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
// it left out. Of a layer that an Upper had open when its host went down, it
// takes what was flushed.
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
	stop := HeaderSize + l.id.VirtualSize // an index may follow, if sealing was cut short
	for off := int64(HeaderSize); ; {
		start, end, err := s.NextData(off)
		if errors.Is(err, io.EOF) || err == nil && start >= stop {
			return nil
		}
		if err != nil {
			return err
		}
		end = min(end, stop)
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
	out, err := readLog(ctx, index, l.r.Size())
	if err != nil {
		return err
	}
	l.entries, l.dropped = out.index.entries(), out.dropped
	return nil
}
