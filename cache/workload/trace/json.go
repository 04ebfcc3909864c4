package trace

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// maxRecord is how long a record may be, in bytes: what is longer is no record.
const maxRecord = 1 << 20

// jsonRecords reads records from a JSON array or from objects one after the other,
// with whatever white space and commas are between them.
type jsonRecords struct {
	r    *bufio.Reader
	buf  []byte
	n    int // records read
	line int // lines begun, from 1
	done bool
}

func newJSONRecords(r *bufio.Reader) *jsonRecords { return &jsonRecords{r: r, line: 1} }

func (j *jsonRecords) where() string { return fmt.Sprintf("record %d (line %d)", j.n, j.line) }

// next reads one record into rec. An error about the record alone is a *badRecord.
func (j *jsonRecords) next(rec *Record) error {
	if j.done {
		return io.EOF
	}
	if err := j.seek(); err != nil {
		return err
	}
	j.n++
	text, err := j.object()
	if err != nil {
		return err
	}
	*rec = Record{}
	if fastRecord(text, rec) {
		return nil
	}
	*rec = Record{}
	if err := json.Unmarshal(text, rec); err != nil {
		return &badRecord{err}
	}
	return nil
}

// seek goes to the brace of the next object.
func (j *jsonRecords) seek() error {
	for {
		c, err := j.r.ReadByte()
		if err != nil {
			return err // io.EOF among them: an array that was not closed is a log that is being written
		}
		switch c {
		case '\n':
			j.line++
		case ' ', '\t', '\r', ',', '[':
		case ']':
			j.done = true
			return j.onlySpace()
		case '{':
			return nil
		default:
			return fmt.Errorf("there is %q where a record should begin", c)
		}
	}
}

// onlySpace reads the rest behind an array.
func (j *jsonRecords) onlySpace() error {
	for {
		c, err := j.r.ReadByte()
		if err != nil {
			return err
		}
		if !bytes.ContainsRune([]byte(" \t\r\n"), rune(c)) {
			return fmt.Errorf("there is %q after the end of the array", c)
		}
	}
}

var errCut = errors.New("the file ends within a record")

// object returns the text of the object whose brace was just read. It is valid until
// the next call.
func (j *jsonRecords) object() ([]byte, error) {
	j.buf = append(j.buf[:0], '{')
	depth, quoted := 1, false
	for depth > 0 {
		c, err := j.r.ReadByte()
		if err != nil {
			if err == io.EOF {
				err = errCut
			}
			return nil, err
		}
		if len(j.buf) >= maxRecord {
			return nil, fmt.Errorf("a record is longer than %d bytes", maxRecord)
		}
		j.buf = append(j.buf, c)
		switch {
		case c == '\n':
			j.line++
		case quoted && c == '\\':
			if c, err = j.r.ReadByte(); err != nil {
				return nil, errCut
			}
			j.buf = append(j.buf, c)
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{':
			depth++
		case c == '}':
			depth--
		}
	}
	return j.buf, nil
}

// fastRecord parses an object of strings without escapes and numbers, which all
// records of the traces are, at several times the speed of encoding/json. It reports
// false for anything else.
func fastRecord(text []byte, rec *Record) bool {
	s := fastScanner{text: text, at: 1, ok: true}
	if s.skip() == '}' {
		return true
	}
	for s.ok {
		key := s.str()
		s.want(':')
		s.field(key, rec)
		switch s.skip() {
		case ',':
			s.at++
		case '}':
			return s.ok && s.at == len(text)-1
		default:
			return false
		}
	}
	return false
}

type fastScanner struct {
	text []byte
	at   int
	ok   bool
}

// skip skips white space and returns the byte it stands before.
func (s *fastScanner) skip() byte {
	for s.at < len(s.text) {
		switch c := s.text[s.at]; c {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return c
		}
	}
	s.ok = false
	return 0
}

func (s *fastScanner) want(c byte) {
	if s.skip() != c {
		s.ok = false
		return
	}
	s.at++
}

// str reads a string of printable ASCII without escapes.
func (s *fastScanner) str() []byte {
	s.want('"')
	for i := s.at; s.ok && i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '"':
			v := s.text[s.at:i]
			s.at = i + 1
			return v
		case c == '\\' || c < ' ' || c > '~':
			s.ok = false
		}
	}
	s.ok = false
	return nil
}

// num reads the text of a number.
func (s *fastScanner) num() string {
	c := s.skip()
	from := s.at
	for s.at < len(s.text) && (c >= '0' && c <= '9' || c == '-' || c == '.' || c == 'e' || c == '+') {
		s.at++
		if s.at < len(s.text) {
			c = s.text[s.at]
		}
	}
	return string(s.text[from:s.at])
}

func (s *fastScanner) integer() int64 {
	v, err := strconv.ParseInt(s.num(), 10, 64)
	s.ok = s.ok && err == nil
	return v
}

// field reads the value of a key into rec. A key that a Record does not have is for
// encoding/json.
func (s *fastScanner) field(key []byte, rec *Record) {
	switch string(key) {
	case "host":
		rec.Host = string(s.str())
	case "http.request.duration":
		v, err := strconv.ParseFloat(s.num(), 64)
		rec.Duration, s.ok = v, s.ok && err == nil
	case "http.request.method":
		rec.Method = method(s.str())
	case "http.request.remoteaddr":
		rec.RemoteAddr = string(s.str())
	case "http.request.uri":
		rec.URI = string(s.str())
	case "http.request.useragent":
		rec.UserAgent = string(s.str())
	case "http.response.status":
		rec.Status = int(s.integer())
	case "http.response.written":
		rec.Written = s.integer()
	case "id":
		rec.ID = string(s.str())
	case "timestamp":
		rec.Timestamp = string(s.str())
	case "http.request.range":
		rec.Range = string(s.str())
	default:
		s.ok = false
	}
}

// method returns the name of a method without allocating the usual ones.
func method(b []byte) string {
	for _, m := range [...]string{"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"} {
		if string(b) == m {
			return m
		}
	}
	return string(b)
}
