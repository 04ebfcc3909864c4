// Package trace reads and writes recorded traffic of registries: the records of
// the IBM registry traces of FAST'18 (JSON arrays, JSON lines, CSV; plain, gzip or
// zstd), as a stream in order of time, however long the trace and however many its
// files.
package trace

import (
	"io"
	"strings"
	"time"
)

// Record is a record of the IBM registry traces as it is in their files. The
// registry cache writes its access log in this form too.
type Record struct {
	Host       string  `json:"host"`
	Duration   float64 `json:"http.request.duration"` // seconds
	Method     string  `json:"http.request.method"`
	RemoteAddr string  `json:"http.request.remoteaddr"`
	URI        string  `json:"http.request.uri"` // without the slash before it
	UserAgent  string  `json:"http.request.useragent"`
	Status     int     `json:"http.response.status"`
	Written    int64   `json:"http.response.written"` // bytes sent, or of a PUT received
	ID         string  `json:"id"`                    // 10 hexadecimal digits
	Timestamp  string  `json:"timestamp"`             // TimestampFormat

	// Range is an extension: the Range header of the request, such as
	// "bytes=0-4095". The published traces have none.
	Range string `json:"http.request.range,omitempty"`
}

// TimestampFormat is that of the traces: UTC, milliseconds.
const TimestampFormat = "2006-01-02T15:04:05.000Z"

// Request is a recorded request as the replayer and the simulator use it.
type Request struct {
	Delay    time.Duration // since the first request of the trace; 0 in a trace without times
	Time     time.Time     // when it came; zero in a trace without times
	Duration time.Duration // what the recorded registry took
	Method   string        // in capitals
	URI      string        // without the slash before it and without a query; "/" alone has one
	Host     string        // of the registry's servers, the one that answered
	Client   string        // who asked
	Status   int           // 0 where the trace has none
	Size     int64         // bytes of the body; -1 where the trace has none
	Off, Len int64         // of a range read, bytes; Len is 0 of any other
}

// Reader is a stream of requests, in order of time.
type Reader interface {
	// Next returns the next request. The error is io.EOF after the last one.
	Next() (Request, error)
}

// Of returns a reader of the requests given.
func Of(requests ...Request) Reader { return &list{requests} }

type list struct{ rest []Request }

func (l *list) Next() (Request, error) {
	if len(l.rest) == 0 {
		return Request{}, io.EOF
	}
	r := l.rest[0]
	l.rest = l.rest[1:]
	return r, nil
}

// Kind is what a request is about.
type Kind uint8

// The kinds of requests.
const (
	Other     Kind = iota
	Ping           // v2
	Manifest       // v2/REPOSITORY/manifests/REFERENCE
	Blob           // v2/REPOSITORY/blobs/REFERENCE
	Upload         // v2/REPOSITORY/blobs/uploads/..., and a PUT of a Blob: the traces name it by the id of the upload
	Tags           // v2/REPOSITORY/tags/list
	Referrers      // v2/REPOSITORY/referrers/REFERENCE
)

var kindNames = [...]string{"other", "ping", "manifest", "blob", "upload", "tags", "referrers"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[Other]
}

// Target is what a URI names.
type Target struct {
	Kind       Kind
	Repository string
	Reference  string // tag, digest or token; of an upload its id, "" of one that begins
}

// Parse takes a URI apart by its segments, so that repositories with "blobs" or
// "manifests" in their names are not mistaken for those.
func Parse(uri string) Target {
	uri, _, _ = strings.Cut(uri, "?")
	path, ok := strings.CutPrefix(strings.Trim(uri, "/"), "v2")
	if ok && path == "" {
		return Target{Kind: Ping}
	}
	if path, ok = strings.CutPrefix(path, "/"); !ok {
		return Target{}
	}
	if i := strings.LastIndex(path, "/blobs/uploads"); i > 0 {
		if rest := path[i+len("/blobs/uploads"):]; rest == "" || rest[0] == '/' {
			return Target{Upload, path[:i], strings.TrimPrefix(rest, "/")}
		}
	}
	if repo, ok := strings.CutSuffix(path, "/tags/list"); ok && repo != "" {
		return Target{Tags, repo, ""}
	}
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return Target{}
	}
	dir, ref := path[:i], path[i+1:]
	j := strings.LastIndexByte(dir, '/')
	if j <= 0 || ref == "" {
		return Target{}
	}
	switch repo := dir[:j]; dir[j+1:] {
	case "manifests":
		return Target{Manifest, repo, ref}
	case "blobs":
		return Target{Blob, repo, ref}
	case "referrers":
		return Target{Referrers, repo, ref}
	}
	return Target{}
}

// Target returns what the request is about. A PUT of a blob is an upload.
func (r Request) Target() Target {
	t := Parse(r.URI)
	if t.Kind == Blob && r.Method != "GET" && r.Method != "HEAD" {
		t.Kind = Upload
	}
	return t
}
