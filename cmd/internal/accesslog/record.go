package accesslog

import (
	"encoding/json"
	"net"
	"strings"
	"time"

	"github.com/reprise-containers/reprise/cache/proxy"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// Entry is a line in the log's own form.
type Entry struct {
	Time      string  `json:"time"` // RFC 3339, when the request came
	Client    string  `json:"client"`
	Method    string  `json:"method"`
	Host      string  `json:"host"` // as the client sent it
	Path      string  `json:"path"`
	Upstream  string  `json:"upstream,omitempty"`
	Repo      string  `json:"repo,omitempty"`
	Kind      string  `json:"kind"`
	Reference string  `json:"reference,omitempty"`
	Range     string  `json:"range,omitempty"` // that was sent, "bytes=FIRST-LAST"
	Status    int     `json:"status"`
	Bytes     int64   `json:"bytes"` // of the body
	Aborted   bool    `json:"aborted,omitempty"`
	Seconds   float64 `json:"seconds"`
	Outcome   string  `json:"outcome"`
	UserAgent string  `json:"userAgent,omitempty"`
}

// longest bounds what clients choose, in bytes.
const longest = 512

func clip(s string) string {
	if len(s) > longest {
		return strings.ToValidUTF8(s[:longest], "")
	}
	return s
}

func jsonLine(r proxy.Record) []byte {
	return line(Entry{
		Time: r.Start.UTC().Format(time.RFC3339Nano), Client: client(r.RemoteAddr),
		Method: clip(r.Method), Host: clip(r.Host), Path: clip(r.Path), Upstream: r.Upstream,
		Repo: r.Repo, Kind: r.Kind, Reference: r.Reference, Range: r.Range, Status: r.Status, Bytes: r.Bytes, Aborted: r.Aborted,
		Seconds: r.Duration.Seconds(), Outcome: string(r.Outcome), UserAgent: clip(r.UserAgent),
	})
}

func traceLine(r proxy.Record) []byte {
	host := r.Upstream
	if host == "" {
		host = clip(r.Host)
	}
	uri := strings.Trim(clip(r.Path), "/")
	if uri == "" {
		uri = "/" // a record without a URI is none
	}
	return line(trace.Record{
		Host: host, Duration: r.Duration.Seconds(), Method: clip(r.Method), RemoteAddr: client(r.RemoteAddr),
		URI: uri, UserAgent: clip(r.UserAgent), Status: r.Status, Written: r.Bytes,
		ID: requestID(), Timestamp: r.Start.UTC().Format(trace.TimestampFormat), Range: r.Range,
	})
}

// line returns v as JSON with a newline. It is one of the two structs, which always
// have a JSON form.
func line(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return append(text, '\n')
}

// client returns the address without its port, which changes with each connection.
func client(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}
