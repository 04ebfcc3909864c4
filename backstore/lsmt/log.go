package lsmt

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/reprise-containers/reprise/remote/blob"
)

// The index file of an append-only layer is overlaybd's, with two additions
// that overlaybd does not see.
//
// While the layer is open, the last sector of the header block, which the
// format leaves zero, says in which boot of which host that is: a session. And
// each flush appends a mark: a padding record, which readers skip wherever it
// stands, with the number of records whose data is on the disk. When a session
// was ended by the end of its boot, records behind the last mark may have
// reached the disk without their data, and without a way to tell: a file can
// grow on the disk before it is filled. So they are left out. When only the
// process died, the kernel has all it was given, and all records count.
const (
	markKind      = 0x2A52 // in place of the length of a padding record
	sessionOffset = HeaderSize - SectorSize
	sessionMagic  = "REPRISE\x01"
	bootSize      = 16
)

// session is what the index file says about who has the layer open.
type session struct {
	boot    []byte // nil if nobody, or somebody who does not say
	records int64  // that were durable when it began
}

func decodeSession(sector []byte) session {
	if !bytes.HasPrefix(sector, []byte(sessionMagic)) {
		return session{}
	}
	sector = sector[len(sessionMagic):]
	n := binary.LittleEndian.Uint64(sector[bootSize:])
	return session{boot: bytes.Clone(sector[:bootSize]), records: int64(min(n, maxLogRecords))}
}

func (s session) encode() []byte {
	sector := make([]byte, SectorSize)
	if s.boot != nil {
		n := copy(sector, sessionMagic)
		n += copy(sector[n:], s.boot)
		binary.LittleEndian.PutUint64(sector[n:], uint64(s.records))
	}
	return sector
}

// bootID identifies this boot of this host.
func bootID() ([]byte, error) {
	const path = "/proc/sys/kernel/random/boot_id"
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	id, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err != nil || len(id) != bootSize {
		return nil, fmt.Errorf("%s: %q is not a UUID", path, text)
	}
	return id, nil
}

// appendMark appends a mark: the data of the first n records is durable.
func appendMark(b []byte, n int64) []byte {
	b = binary.LittleEndian.AppendUint64(b, invalid|markKind<<offsetBits)
	return binary.LittleEndian.AppendUint64(b, uint64(n))
}

// decodeMark returns what a mark says, and false for every other record.
func decodeMark(b []byte) (int64, bool) {
	if binary.LittleEndian.Uint64(b) != invalid|markKind<<offsetBits {
		return 0, false
	}
	n := binary.LittleEndian.Uint64(b[8:])
	return int64(min(n, maxLogRecords+1)), n <= maxLogRecords
}

// replayed is what an index log says.
type replayed struct {
	index   live
	records int64  // of the log, up to the last one that counts
	end     uint64 // sector of the data file behind all that records map to
	dropped int64  // records that do not count
	cut     bool   // there is something behind the last one that counts
}

// logReader replays an index log.
type logReader struct {
	r       blob.ReaderAt
	records int64  // in the file
	limit   uint64 // sectors of the data file
	boot    []byte // of now, nil if all records count
}

// piece calls each with one record after the other, from the first on, until
// it returns false.
func (l *logReader) each(ctx context.Context, each func(i int64, raw []byte) bool) error {
	buf := make([]byte, min(l.records, recordsPiece)*recordSize)
	for i := int64(0); i < l.records; {
		raw := buf[:min(l.records-i, recordsPiece)*recordSize]
		if err := blob.ReadFull(ctx, l.r, raw, HeaderSize+i*recordSize); err != nil {
			return fmt.Errorf("reading log: %w", err)
		}
		for ; len(raw) > 0; raw = raw[recordSize:] {
			if !each(i, raw[:recordSize]) {
				return nil
			}
			i++
		}
	}
	return nil
}

// durable returns how many records count after the host went down in session
// s: the most that a mark vouches for. A mark may come after records that were
// written while its flush was at work, and whose data is not there.
func (l *logReader) durable(ctx context.Context, s session) (int64, error) {
	n, fit := s.records, l.records
	err := l.each(ctx, func(i int64, raw []byte) bool {
		if e, ok := decodeRecord(raw); ok && checkRecord(e, l.limit) != nil {
			fit = min(fit, i)
		}
		if marked, ok := decodeMark(raw); ok && marked <= min(i, fit) {
			n = max(n, marked)
		}
		return true
	})
	return min(n, l.records), err
}

// replay reads records until one does not fit the data file, or they do not
// count any more.
func (l *logReader) replay(ctx context.Context, s session) (*replayed, error) {
	out, count := &replayed{}, l.records
	if s.boot != nil && l.boot != nil && !bytes.Equal(s.boot, l.boot) {
		var err error
		if count, err = l.durable(ctx, s); err != nil {
			return nil, err
		}
	}
	full := false
	err := l.each(ctx, func(i int64, raw []byte) bool {
		e, ok := decodeRecord(raw)
		if !ok {
			return true
		}
		if i >= count || checkRecord(e, l.limit) != nil {
			count = min(count, i)
			out.dropped++
			return true
		}
		out.index.put(e, nil)
		out.records, out.end = i+1, max(out.end, e.mappedEnd())
		full = out.index.n > MaxSegments
		return !full
	})
	if full {
		return nil, fmt.Errorf("index has more than the limit of %d segments", MaxSegments)
	}
	out.end = max(out.end, firstSector)
	out.cut = out.records < l.records
	return out, err
}

// readLog reads the index file of an append-only layer, whose data file has size
// bytes.
func readLog(ctx context.Context, index blob.ReaderAt, size int64) (*replayed, error) {
	if index.Size() < HeaderSize {
		return nil, fmt.Errorf("%w: %d bytes are less than a header", ErrFormat, index.Size())
	}
	block := make([]byte, HeaderSize)
	if err := blob.ReadFull(ctx, index, block, 0); err != nil {
		return nil, fmt.Errorf("reading header: %w", err)
	}
	h, err := decodeHeader(block)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	l := logReader{r: index, records: (index.Size() - HeaderSize) / recordSize, limit: uint64(size / SectorSize)}
	switch {
	case !h.is(flagHeader, flagHeader|flagData|flagSealed):
		return nil, fmt.Errorf("header: flags %#x are not those of an index file", h.flags)
	case h.indexOffset != HeaderSize:
		return nil, fmt.Errorf("header: log starts at offset %d, want %d", h.indexOffset, HeaderSize)
	case l.records > maxLogRecords:
		return nil, fmt.Errorf("log of %d records exceeds the limit of %d", l.records, maxLogRecords)
	}
	if l.boot, err = bootID(); err != nil {
		return nil, fmt.Errorf("identifying this boot: %w", err)
	}
	return l.replay(ctx, decodeSession(block[sessionOffset:]))
}

// indexLog is the index file of an append-only layer that is open. It is kept
// longer than its records, with padding records ahead of them: a record then
// changes the contents of the file and nothing else, which is much cheaper to
// make durable, and a flush needs no room on a full disk.
type indexLog struct {
	file hostFile
	path string

	mu      sync.Mutex // held while records are written, so that they are in order
	records int64      // that were written, all kinds
	real    int64      // up to the last one that is no mark
	ahead   int64      // records that the file has room for
	durable int64      // records whose data is durable; for flushes only
}

const (
	leastAhead = HeaderSize / recordSize // records of padding that are written at once
	mostAhead  = 16 * leastAhead
)

// append writes e as the next record. Callers hold l.mu.
func (l *indexLog) append(e entry) error {
	if l.records >= maxLogRecords-leastAhead {
		return errLogFull
	}
	if err := l.write(appendRecord(make([]byte, 0, recordSize), e)); err != nil {
		return err
	}
	l.real = l.records
	return nil
}

// mark writes a mark. Callers hold l.mu.
func (l *indexLog) mark(n int64) error {
	if l.records >= maxLogRecords {
		return errLogFull
	}
	return l.write(appendMark(make([]byte, 0, recordSize), n))
}

// write writes a record. One that fails does not count: the next goes to the
// same place.
func (l *indexLog) write(raw []byte) error {
	if l.records >= l.ahead {
		l.prepare()
	}
	if _, err := l.file.WriteAt(raw, HeaderSize+l.records*recordSize); err != nil {
		return fmt.Errorf("writing index log: %w", err)
	}
	l.records++
	return nil
}

// prepare writes padding ahead, if it can.
func (l *indexLog) prepare() {
	n := min(max(l.records/4, leastAhead), mostAhead)
	n -= (l.records + n) % leastAhead // whole pages
	padding := make([]byte, 0, n*recordSize)
	for range n {
		padding = appendRecord(padding, newEntry(invalid, 0, 0, false))
	}
	if _, err := l.file.WriteAt(padding, HeaderSize+l.records*recordSize); err == nil {
		l.ahead = l.records + n
	}
}

// trim cuts off what is behind the last record that is no mark.
func (l *indexLog) trim() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.file.truncate(HeaderSize + l.real*recordSize); err != nil {
		return err
	}
	l.records, l.ahead = l.real, l.real
	l.durable = min(l.durable, l.real)
	return nil
}

// setSession says who has the layer open, durably.
func (l *indexLog) setSession(s session) error {
	if _, err := l.file.WriteAt(s.encode(), sessionOffset); err != nil {
		return fmt.Errorf("writing index header: %w", err)
	}
	return l.file.sync()
}
