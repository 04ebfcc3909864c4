package trace

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// csvRecords reads the CSV form of the traces: a header with the names of the
// record's fields in any order, among others that are not used.
type csvRecords struct {
	r       *csv.Reader
	bound   bounded
	columns []func(*Record, string) error // nil: not used
	line    int                           // of the last record
	names   names
}

func newCSVRecords(r *bufio.Reader) (*csvRecords, error) {
	c := &csvRecords{bound: bounded{r: r, left: maxRecord}, line: 1}
	c.r = csv.NewReader(&c.bound)
	c.r.ReuseRecord = true
	c.r.FieldsPerRecord = -1
	header, err := c.r.Read()
	if err != nil {
		return nil, err
	}
	known := 0
	for _, name := range header {
		set := c.field(strings.TrimSpace(name))
		c.columns = append(c.columns, set)
		if set != nil {
			known++
		}
	}
	if known == 0 {
		return nil, fmt.Errorf("the first line names no field of a record, such as http.request.uri")
	}
	return c, nil
}

func (c *csvRecords) where() string { return fmt.Sprintf("line %d", c.line) }

func (c *csvRecords) next(rec *Record) error {
	c.bound.left = maxRecord
	row, err := c.r.Read()
	if err != nil {
		if bad, ok := errors.AsType[*csv.ParseError](err); ok {
			c.line = bad.StartLine
			return &badRecord{bad.Err}
		}
		return err
	}
	c.line, _ = c.r.FieldPos(0)
	*rec = Record{}
	for i, text := range row {
		if i >= len(c.columns) || c.columns[i] == nil {
			continue
		}
		if err := c.columns[i](rec, strings.TrimSpace(text)); err != nil {
			return &badRecord{err}
		}
	}
	return nil
}

// bounded is a reader that fails when more is read than is left, so that a quote too
// many does not make a record of the rest of a file.
type bounded struct {
	r    io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("a record is longer than %d bytes", maxRecord)
	}
	n, err := b.r.Read(p)
	b.left -= n
	return n, err
}

// field returns what puts a column into a record, nil for one that no Request has.
// Numbers may have been through a program that knows floating point only.
func (c *csvRecords) field(name string) func(*Record, string) error {
	text := func(at func(*Record) *string) func(*Record, string) error {
		return func(r *Record, s string) error { *at(r) = strings.Clone(s); return nil }
	}
	named := func(at func(*Record) *string) func(*Record, string) error {
		return func(r *Record, s string) error { *at(r) = c.names.of([]byte(s)); return nil }
	}
	number := func(set func(*Record, float64)) func(*Record, string) error {
		return func(r *Record, s string) error {
			if s == "" {
				return nil
			}
			v, err := strconv.ParseFloat(s, 64)
			if err != nil || v != v || v > 1<<62 || v < -1<<62 {
				return fmt.Errorf("%s: %q is not a number", name, s)
			}
			set(r, v)
			return nil
		}
	}
	switch name {
	case "host":
		return named(func(r *Record) *string { return &r.Host })
	case "http.request.duration":
		return number(func(r *Record, v float64) { r.Duration = v })
	case "http.request.method":
		return named(func(r *Record) *string { return &r.Method })
	case "http.request.remoteaddr":
		return named(func(r *Record) *string { return &r.RemoteAddr })
	case "http.request.uri":
		return text(func(r *Record) *string { return &r.URI })
	case "http.response.status":
		return number(func(r *Record, v float64) { r.Status = int(v) })
	case "http.response.written":
		return number(func(r *Record, v float64) { r.Written = int64(v) })
	case "timestamp":
		return text(func(r *Record) *string { return &r.Timestamp })
	case "http.request.range":
		return text(func(r *Record) *string { return &r.Range })
	}
	return nil
}

// uriLines reads a list of URIs, one a line, each a GET of unknown size.
type uriLines struct {
	lines *bufio.Scanner
	n     int
}

func newURILines(r *bufio.Reader) *uriLines {
	l := &uriLines{lines: bufio.NewScanner(r)}
	l.lines.Buffer(nil, maxRecord)
	return l
}

func (l *uriLines) where() string { return fmt.Sprintf("line %d", l.n) }

func (l *uriLines) next(rec *Record) error {
	for l.lines.Scan() {
		l.n++
		text := strings.TrimSpace(l.lines.Text())
		if text == "" {
			continue
		}
		*rec = Record{URI: text, Method: "GET", Written: -1}
		if strings.ContainsAny(text, " \t\"{}[]<>") {
			return &badRecord{fmt.Errorf("%.40q is not a URI", text)}
		}
		return nil
	}
	if err := l.lines.Err(); err != nil {
		return err
	}
	return io.EOF
}
