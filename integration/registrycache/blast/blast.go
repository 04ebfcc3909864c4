// Package blast loads an HTTP/1.1 server with GETs over a fixed number of
// connections, each of which asks anew as soon as it has its answer, and measures
// throughput and latency. It speaks HTTP itself, as little of it as is needed: on
// one machine what a client costs is missing at the server.
package blast

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Load is what a server is loaded with.
type Load struct {
	// Address is host:port.
	Address string
	// Paths are asked for at random, each as often as the others.
	Paths []string
	// Header is appended to the head of each request, in lines with CRLF.
	Header string
	// Connections is their number.
	Connections int
	// For is how long new requests are made. What is under way is finished
	// and counted, and so is its time.
	For time.Duration
	// Size is that of every body in bytes.
	Size int64
}

// Result is what a load gave.
type Result struct {
	Requests int
	// Bytes counts bodies only.
	Bytes int64
	Took  time.Duration
	// Latencies are sorted: one a request, from its first byte to the last of
	// its answer.
	Latencies []time.Duration
}

// Rate is the throughput in requests a second.
func (r Result) Rate() float64 { return float64(r.Requests) / r.Took.Seconds() }

// Throughput is that in bytes a second.
func (r Result) Throughput() float64 { return float64(r.Bytes) / r.Took.Seconds() }

// Quantile returns a latency, of q from 0 to 1.
func (r Result) Quantile(q float64) time.Duration {
	if len(r.Latencies) == 0 {
		return 0
	}
	return r.Latencies[min(int(q*float64(len(r.Latencies))), len(r.Latencies)-1)]
}

// Run loads the server. An answer other than 200 with a body of the right size
// is an error and ends it.
func (l Load) Run(ctx context.Context) (Result, error) {
	var all sync.WaitGroup
	results := make([]Result, l.Connections)
	errs := make([]error, l.Connections)
	begun := time.Now()
	for i := range l.Connections {
		all.Go(func() { results[i], errs[i] = l.connection(ctx, begun.Add(l.For)) })
	}
	all.Wait()
	sum := Result{Took: time.Since(begun)}
	for _, r := range results {
		sum.Requests += r.Requests
		sum.Bytes += r.Bytes
		sum.Latencies = append(sum.Latencies, r.Latencies...)
	}
	slices.Sort(sum.Latencies)
	if err := errors.Join(errs...); err != nil {
		return sum, fmt.Errorf("loading %s: %w", l.Address, err)
	}
	return sum, nil
}

func (l Load) connection(ctx context.Context, until time.Time) (Result, error) {
	var r Result
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", l.Address)
	if err != nil {
		return r, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	heads := make([][]byte, len(l.Paths))
	for i, p := range l.Paths {
		heads[i] = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", p, l.Address, l.Header)
	}
	buf := make([]byte, 64<<10)
	for {
		begun := time.Now()
		if !begun.Before(until) {
			return r, nil
		}
		if _, err := conn.Write(heads[rand.IntN(len(heads))]); err != nil {
			return r, err
		}
		n, err := answer(conn, buf, l.Size)
		r.Bytes += n
		if err != nil {
			return r, err
		}
		r.Requests++
		r.Latencies = append(r.Latencies, time.Since(begun))
	}
}

var (
	headEnd = []byte("\r\n\r\n")
	ok200   = []byte("HTTP/1.1 200 ")
	length  = []byte("\r\ncontent-length: ")
)

// answer reads one answer and returns how much of its body came.
func answer(r io.Reader, buf []byte, size int64) (int64, error) {
	have, end := 0, -1
	for end < 0 {
		n, err := r.Read(buf[have:])
		if err != nil {
			return 0, err
		}
		have += n
		end = bytes.Index(buf[:have], headEnd)
		if end < 0 && have == len(buf) {
			return 0, errors.New("the head does not end")
		}
	}
	head := buf[:end+2]
	if !bytes.HasPrefix(head, ok200) {
		return 0, fmt.Errorf("the answer is %.200q", buf[:have])
	}
	announced, err := contentLength(head)
	if err != nil || announced != size {
		return 0, fmt.Errorf("a length of %d for %d bytes: %.300q", announced, size, head)
	}
	got := int64(have - end - len(headEnd))
	for got < size {
		n, err := r.Read(buf[:min(int64(len(buf)), size-got)])
		got += int64(n)
		if err != nil {
			return got, fmt.Errorf("after %d of %d bytes: %w", got, size, err)
		}
	}
	if got > size {
		return got, fmt.Errorf("%d bytes for %d", got, size)
	}
	return got, nil
}

// contentLength finds the field whatever the case of its name.
func contentLength(head []byte) (int64, error) {
	for at := 0; ; {
		i := bytes.IndexByte(head[at:], '\r')
		if i < 0 || at+i+len(length) > len(head) {
			return -1, errors.New("no Content-Length")
		}
		at += i
		if bytes.EqualFold(head[at:at+len(length)], length) {
			value, _, _ := bytes.Cut(head[at+len(length):], headEnd[:2])
			return strconv.ParseInt(string(value), 10, 64)
		}
		at++
	}
}
