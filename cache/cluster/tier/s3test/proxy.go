package s3test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Fault is what a Proxy does to requests.
type Fault struct {
	// Methods are those it is done to, such as "GET"; none: all.
	Methods []string
	// Times is how many requests it is done to; 0: all.
	Times int
	// Status is what is answered instead of asking the server; 0: ask it.
	Status int
	// Code is the S3 error that is answered with Status, such as "SlowDown"; "": no
	// XML, as a proxy answers.
	Code string
	// Body is what is answered then; "": a line of text.
	Body string
	// Bytes is after how many bytes of an answer's body Reset, Truncate or Stall
	// happens; 0: Reset and Stall happen before its header, when the server has done
	// what was asked.
	Bytes int64
	// Reset closes the connection with RST.
	Reset bool
	// Truncate ends the body, and says by its header that it was all.
	Truncate bool
	// Stall says nothing more until the client leaves or the fault is taken away.
	Stall bool
	// Flip changes a bit of the byte at Bytes.
	Flip bool
	// Slow is a pause before each 64 KiB of a body.
	Slow time.Duration
}

// Proxy is an HTTP server in front of a Server. Without a fault it changes nothing.
type Proxy struct {
	Endpoint string // host:port

	requests atomic.Int64
	mu       sync.Mutex
	fault    *Fault
	left     int
	healed   chan struct{}
}

// NewProxy starts a proxy for the time of a test.
func NewProxy(t testing.TB, s *Server) *Proxy {
	t.Helper()
	p := &Proxy{Endpoint: freeAddress(t), healed: make(chan struct{})}
	l, err := net.Listen("tcp", p.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{
		// Signatures are of the host that the client names.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: s.Endpoint})
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		BufferPool:   newBuffers(),
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.requests.Add(1)
		fault, healed := p.next(r.Method)
		if fault == nil {
			forward.ServeHTTP(w, r)
			return
		}
		if fault.Status != 0 {
			_, _ = io.Copy(io.Discard, r.Body)
			if fault.Code != "" {
				w.Header().Set("Content-Type", "application/xml")
				w.WriteHeader(fault.Status)
				fmt.Fprintf(w, "<Error><Code>%s</Code><Message>broken on purpose</Message></Error>", fault.Code)
				return
			}
			body := fault.Body
			if body == "" {
				body = errBroken.Error()
			}
			http.Error(w, body, fault.Status)
			return
		}
		forward.ServeHTTP(&faulty{ResponseWriter: w, r: r, fault: *fault, healed: healed}, r)
	}), ErrorLog: quiet}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() {
		p.Heal()
		_ = server.Close()
	})
	return p
}

// Break does f to what is asked from now on.
func (p *Proxy) Break(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.left = &f, f.Times
}

// Heal takes the fault away, also from those who wait in a Stall: they are cut.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = nil
	close(p.healed)
	p.healed = make(chan struct{})
}

// Requests returns how many came.
func (p *Proxy) Requests() int64 { return p.requests.Load() }

// next returns the fault of a request, nil for none, and what ends its stall.
func (p *Proxy) next(method string) (*Fault, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.fault
	if f == nil || !f.hits(method) {
		return nil, nil
	}
	if f.Times > 0 {
		if p.left == 0 {
			return nil, nil
		}
		p.left--
	}
	return f, p.healed
}

func (f *Fault) hits(method string) bool {
	for _, m := range f.Methods {
		if m == method {
			return true
		}
	}
	return len(f.Methods) == 0
}

// errBroken ends an answer that was broken.
var errBroken = errors.New("broken on purpose")
