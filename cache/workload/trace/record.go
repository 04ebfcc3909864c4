package trace

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// maxDuration is longer than any request, in seconds: what is above it, as what is no
// number, was never measured.
const maxDuration = 1e9

// Request returns what the record says, without Delay. Its error names the field.
func (r *Record) Request() (Request, error) {
	if r.URI == "" {
		return Request{}, fmt.Errorf("http.request.uri is missing")
	}
	if !(math.Abs(r.Duration) < maxDuration) {
		return Request{}, fmt.Errorf("http.request.duration: %g s is none", r.Duration)
	}
	uri, _, _ := strings.Cut(r.URI, "?")
	uri = strings.Trim(uri, "/")
	if uri == "" {
		uri = "/" // of a server that answers more than the registry's paths
	}
	out := Request{
		Duration: max(0, time.Duration(r.Duration*float64(time.Second))), Method: strings.ToUpper(r.Method),
		URI: uri, Host: r.Host, Client: r.RemoteAddr, Status: r.Status, Size: max(r.Written, -1),
	}
	if out.Method == "" {
		out.Method = "GET"
	}
	if r.Timestamp != "" {
		var err error
		if out.Time, err = parseTime(r.Timestamp); err != nil {
			return Request{}, err
		}
	}
	if r.Range != "" {
		var err error
		if out.Off, out.Len, err = parseRange(r.Range, r.Written); err != nil {
			return Request{}, err
		}
	}
	return out, nil
}

// Record returns the request as a record of a trace file. What a Request does not
// know is left empty.
func (r Request) Record() Record {
	out := Record{
		Host: r.Host, Duration: r.Duration.Seconds(), Method: r.Method, RemoteAddr: r.Client,
		URI: r.URI, Status: r.Status, Written: max(r.Size, 0),
	}
	if !r.Time.IsZero() {
		out.Timestamp = r.Time.UTC().Format(TimestampFormat)
	}
	if r.Len > 0 {
		out.Range = fmt.Sprintf("bytes=%d-%d", r.Off, r.Off+r.Len-1)
	}
	return out
}

// parseTime parses the timestamps of the traces, and those of their CSV form, which
// have a space and no zone. A fraction of a second may be missing.
func parseTime(text string) (time.Time, error) {
	if t, ok := fastTime(text); ok {
		return t, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("timestamp %q is not of the form %s", text, TimestampFormat)
}

// fastTime parses TimestampFormat, which nearly all have: time.Parse would be half
// of what reading a record costs.
func fastTime(s string) (time.Time, bool) {
	if len(s) != len(TimestampFormat) {
		return time.Time{}, false
	}
	for i := range len(s) {
		switch c := TimestampFormat[i]; {
		case c >= '0' && c <= '9':
			if s[i] < '0' || s[i] > '9' {
				return time.Time{}, false
			}
		case s[i] != c:
			return time.Time{}, false
		}
	}
	n := func(from, to int) (v int) {
		for _, c := range []byte(s[from:to]) {
			v = 10*v + int(c-'0')
		}
		return v
	}
	year, month, day := n(0, 4), n(5, 7), n(8, 10)
	hour, minute, second, milli := n(11, 13), n(14, 16), n(17, 19), n(20, 23)
	if month < 1 || month > 12 || day < 1 || day > 28 || max(hour-23, minute-59, second-59) > 0 {
		return time.Time{}, false // the 29th and later are for time.Parse to judge
	}
	return time.Date(year, time.Month(month), day, hour, minute, second, milli*1e6, time.UTC), true
}

// parseRange parses "bytes=FIRST-LAST". With no LAST it is what was written.
func parseRange(text string, written int64) (off, n int64, err error) {
	first, last, ok := strings.Cut(strings.TrimPrefix(text, "bytes="), "-")
	off, err = strconv.ParseInt(first, 10, 64)
	if !ok || err != nil || off < 0 {
		return 0, 0, fmt.Errorf("http.request.range %q is not of the form bytes=FIRST-LAST", text)
	}
	if last == "" && written > 0 && off < math.MaxInt64-written {
		return off, written, nil
	}
	end, err := strconv.ParseInt(last, 10, 64)
	if err != nil || end < off || end == math.MaxInt64 {
		return 0, 0, fmt.Errorf("http.request.range %q is not of the form bytes=FIRST-LAST", text)
	}
	return off, end + 1 - off, nil
}
