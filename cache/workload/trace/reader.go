package trace

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// records is a stream of records in one of the forms they come in.
type records interface {
	// next reads one record. An error about that record alone, after which the next
	// can be read, is a *badRecord.
	next(*Record) error
	// where says where the last record was.
	where() string
}

// badRecord is an error of one record.
type badRecord struct{ error }

func (b *badRecord) Unwrap() error { return b.error }

// Stream reads the requests of one file, in the order they are in it. It is a
// Reader; Delay is not set.
type Stream struct {
	name    string
	from    records
	rec     Record
	close   func()
	skipBad bool
	bad     uint64
}

// NewReader returns the requests in r, which errors call name. The form is told by
// the content: a JSON array, JSON objects one after the other, CSV with a header, or
// a URI a line; plain, gzip or zstd.
func NewReader(r io.Reader, name string) (*Stream, error) {
	plain, end, err := decompress(bufio.NewReaderSize(r, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	s := &Stream{name: name, close: end}
	if s.from, err = form(plain); err != nil {
		end()
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return s, nil
}

// decompress returns what is in r, and what to call at the end.
func decompress(r *bufio.Reader) (*bufio.Reader, func(), error) {
	head, err := r.Peek(4)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, err
		}
		return bufio.NewReaderSize(z, 64<<10), func() {}, nil
	case len(head) == 4 && isZstd(binary.LittleEndian.Uint32(head)):
		// One goroutine a file is enough, and an unknown file decides no more memory.
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, nil, err
		}
		return bufio.NewReaderSize(z, 64<<10), z.Close, nil
	}
	return r, func() {}, nil
}

// isZstd reports whether a file that begins so is Zstandard. Some compressors put a
// frame to be skipped before the others.
func isZstd(magic uint32) bool { return magic == 0xfd2fb528 || magic&^0xf == 0x184d2a50 }

var errEmpty = errors.New("there is nothing in it")

// form tells the form of r by how it begins.
func form(r *bufio.Reader) (records, error) {
	if head, _ := r.Peek(3); string(head) == "\ufeff" { // some editors' mark of UTF-8
		if _, err := r.Discard(3); err != nil {
			return nil, err
		}
	}
	for {
		c, err := r.ReadByte()
		if err == io.EOF {
			return nil, errEmpty
		}
		if err != nil {
			return nil, err
		}
		if bytes.IndexByte([]byte(" \t\r\n"), c) >= 0 {
			continue
		}
		if err := r.UnreadByte(); err != nil {
			return nil, err
		}
		if c == '[' || c == '{' {
			return newJSONRecords(r), nil
		}
		break
	}
	head, err := r.Peek(4096)
	if err != nil && err != io.EOF {
		return nil, err
	}
	line, _, _ := strings.Cut(string(head), "\n")
	if strings.Contains(line, "http.request.uri") {
		return newCSVRecords(r)
	}
	if !strings.HasPrefix(strings.TrimLeft(line, "/"), "v2") {
		return nil, fmt.Errorf("it begins with %.40q: not a JSON array, JSON objects, CSV with a header, or a URI a line", strings.TrimSpace(line))
	}
	return newURILines(r), nil
}

// Next implements Reader. Its errors name the file and the record.
func (s *Stream) Next() (Request, error) {
	for {
		err := s.from.next(&s.rec)
		var r Request
		if err == nil {
			if r, err = s.rec.Request(); err == nil {
				return r, nil
			}
			err = &badRecord{err}
		}
		if errors.Is(err, io.EOF) {
			return Request{}, io.EOF
		}
		if _, one := errors.AsType[*badRecord](err); one && s.skipBad {
			s.bad++
			continue
		}
		return Request{}, fmt.Errorf("reading %s: %s: %w", s.name, s.from.where(), err)
	}
}

// Close frees what the decompression holds. It does not close the file.
func (s *Stream) Close() { s.close() }
