package s3test

import (
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

var quiet = log.New(io.Discard, "", 0)

// faulty is an answer that a Fault is done to.
type faulty struct {
	http.ResponseWriter
	r      *http.Request
	fault  Fault
	healed <-chan struct{}
	sent   int64
	over   bool // nothing more is sent
}

// Unwrap lets http.ResponseController flush and hijack.
func (w *faulty) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *faulty) WriteHeader(status int) {
	if status >= http.StatusOK && w.fault.Bytes == 0 && (w.fault.Reset || w.fault.Stall) {
		w.end() // the server did what was asked, and its answer is lost
		return
	}
	if length, err := strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64); w.fault.Truncate && err == nil {
		w.Header().Set("Content-Length", strconv.FormatInt(min(length, w.fault.Bytes), 10))
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *faulty) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if w.ends() && !w.over {
			_ = http.NewResponseController(w.ResponseWriter).Flush()
			w.end()
		}
		if w.over {
			return written, errBroken
		}
		part := p[:min(len(p), 64<<10)]
		if w.cuts() {
			part = part[:min(int64(len(part)), w.fault.Bytes-w.sent)]
		}
		if at := w.fault.Bytes - w.sent; w.fault.Flip && at >= 0 && at < int64(len(part)) {
			part = append([]byte(nil), part...)
			part[at] ^= 1
		}
		time.Sleep(w.fault.Slow)
		n, err := w.ResponseWriter.Write(part)
		written, w.sent, p = written+n, w.sent+int64(n), p[n:]
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

func (w *faulty) cuts() bool { return w.fault.Reset || w.fault.Truncate || w.fault.Stall }

func (w *faulty) ends() bool { return w.cuts() && w.sent >= w.fault.Bytes }

// end does what the fault does after its bytes.
func (w *faulty) end() {
	w.over = true
	if w.fault.Stall {
		select {
		case <-w.r.Context().Done():
		case <-w.healed:
		}
	}
	if w.fault.Truncate {
		return
	}
	if conn, _, err := http.NewResponseController(w.ResponseWriter).Hijack(); err == nil {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
}

// buffers are what the proxy copies bodies with.
type buffers struct{ pool sync.Pool }

func newBuffers() *buffers {
	return &buffers{sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}}
}

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte { return *b.pool.Get().(*[]byte) }

// Put implements httputil.BufferPool.
func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
