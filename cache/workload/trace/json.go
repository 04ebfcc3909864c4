package trace

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxRecord is how long a record may be, in bytes: what is longer is no record.
const maxRecord = 1 << 20

// ahead is how much of the file is held when a record begins, in bytes, so that
// those of the usual length are read where they are.
const ahead = 8 << 10

// jsonRecords reads records from JSON arrays or from objects one after the other,
// with whatever white space and commas are between them.
type jsonRecords struct {
	r        io.Reader
	buf      []byte // buf[from:to] is read and not used
	from, to int
	err      error // of r, io.EOF among them

	n      int  // records begun
	line   int  // where the next byte is, from 1
	at     int  // line of the last record
	closed bool // an array was closed: another may follow, anything else not
	lost   bool // a record was bad: the next one begins a line
	names  names
}

func newJSONRecords(r io.Reader) *jsonRecords {
	return &jsonRecords{r: r, buf: make([]byte, 64<<10), line: 1, at: 1}
}

func (j *jsonRecords) where() string { return fmt.Sprintf("record %d (line %d)", j.n, j.at) }

// next reads one record into rec, but for its id and user agent, which no Request
// has. After an error about the record alone, a *badRecord, the next line on which a
// record begins is read.
func (j *jsonRecords) next(rec *Record) error {
	if err := j.seek(); err != nil {
		return err
	}
	j.n++
	j.at = j.line
	*rec = Record{}
	if n, ok := fastRecord(j.buf[j.from:j.to], rec, &j.names); ok {
		j.use(n)
		return nil
	}
	return j.slow(rec)
}

// use goes on by n bytes.
func (j *jsonRecords) use(n int) {
	j.line += bytes.Count(j.buf[j.from:j.from+n], []byte{'\n'})
	j.from += n
}

// fill reads until n bytes are held, less at the end of the file or at an error.
func (j *jsonRecords) fill(n int) {
	if j.to-j.from >= n || j.err != nil {
		return
	}
	if j.from > 0 {
		j.to = copy(j.buf, j.buf[j.from:j.to])
		j.from = 0
	}
	if n > len(j.buf) {
		j.buf = append(j.buf, make([]byte, n-len(j.buf))...)
	}
	for empty := 0; j.to < n && j.err == nil; {
		got, err := j.r.Read(j.buf[j.to:])
		j.to, j.err = j.to+got, err
		if empty++; got > 0 {
			empty = 0
		} else if err == nil && empty > 100 {
			j.err = io.ErrNoProgress
		}
	}
}

// seek goes to the brace of the next object.
func (j *jsonRecords) seek() error {
	if j.lost {
		if err := j.skipLine(); err != nil {
			return err
		}
	}
	for {
		j.fill(ahead)
		if j.from == j.to {
			return j.err // io.EOF among them: an array that was not closed is a log that is being written
		}
		switch c := j.buf[j.from]; {
		case c == '{' && !j.closed:
			j.lost = false
			return nil
		case c == '[':
			j.closed = false
		case c == ']':
			j.closed = true
		case c == ' ', c == '\t', c == '\r', c == '\n', c == ',' && !j.closed:
		case j.lost:
			if err := j.skipLine(); err != nil {
				return err
			}
			continue
		default:
			j.n++
			j.at, j.lost = j.line, true
			if j.closed {
				return &badRecord{fmt.Errorf("there is %q after the end of the array", c)}
			}
			return &badRecord{fmt.Errorf("there is %q where a record should begin", c)}
		}
		j.use(1)
	}
}

// skipLine goes to the beginning of the next line.
func (j *jsonRecords) skipLine() error {
	for {
		j.fill(ahead)
		if j.from == j.to {
			return j.err
		}
		if i := bytes.IndexByte(j.buf[j.from:j.to], '\n'); i >= 0 {
			j.use(i + 1)
			return nil
		}
		j.from = j.to
	}
}

var errCut = errors.New("the file ends within a record")

// slow reads what fastRecord does not.
func (j *jsonRecords) slow(rec *Record) error {
	for n := ahead; ; n *= 4 {
		j.fill(n)
		text := j.buf[j.from:j.to]
		d := json.NewDecoder(bytes.NewReader(text))
		err := d.Decode(rec)
		switch {
		case err == nil:
			j.use(int(d.InputOffset()))
			rec.ID, rec.UserAgent = "", ""
			return nil
		case isType(err):
			end := int(d.InputOffset())
			if err = loose(text[:end], rec, err); err != nil {
				err = &badRecord{err}
			}
			j.use(end)
			return err
		case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF): // a syntax error
			j.lost = true
			return &badRecord{err}
		case errors.Is(j.err, io.EOF):
			j.lost = true
			return &badRecord{errCut}
		case j.err != nil:
			return j.err
		case len(text) >= maxRecord:
			j.lost = true
			return &badRecord{fmt.Errorf("a record is longer than %d bytes", maxRecord)}
		}
	}
}

func isType(err error) bool {
	_, ok := errors.AsType[*json.UnmarshalTypeError](err)
	return ok
}

// loose parses a record whose whole numbers have been through a program that knows
// floating point only, such as 9576.0. For any other, the error is was.
func loose(text []byte, rec *Record, was error) error {
	type plain Record
	var x struct {
		plain
		Status  float64 `json:"http.response.status"`
		Written float64 `json:"http.response.written"`
	}
	if json.Unmarshal(text, &x) != nil || x.Status != float64(int32(x.Status)) || x.Written != float64(int64(x.Written)) {
		return was
	}
	*rec = Record(x.plain)
	rec.Status, rec.Written = int(x.Status), int64(x.Written)
	rec.ID, rec.UserAgent = "", ""
	return nil
}
