package registry_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/reprise-containers/reprise/remote/registry"
)

// fakeNet is a network of http servers by host name whose connections are
// pipes, so it works under synctest's clock.
type fakeNet struct {
	mu      sync.Mutex
	hosts   map[string]*fakeHost
	dialled []string
}

type fakeHost struct {
	conns  chan net.Conn
	closed chan struct{}
	server *http.Server

	mu       sync.Mutex
	requests []*http.Request
}

func newNet() *fakeNet { return &fakeNet{hosts: make(map[string]*fakeHost)} }

// serve adds a host. It goes with the test.
func (n *fakeNet) serve(t testing.TB, name string, h http.HandlerFunc) *fakeHost {
	f := &fakeHost{conns: make(chan net.Conn), closed: make(chan struct{})}
	f.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.requests = append(f.requests, r)
		f.mu.Unlock()
		h(w, r)
	})}
	n.mu.Lock()
	n.hosts[name] = f
	n.mu.Unlock()
	done := make(chan struct{})
	go func() {
		f.server.Serve(f)
		close(done)
	}()
	t.Cleanup(func() {
		f.server.Close()
		<-done
	})
	return f
}

// seen returns the requests the host got.
func (f *fakeHost) seen() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*http.Request(nil), f.requests...)
}

// Accept implements net.Listener.
func (f *fakeHost) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (f *fakeHost) Close() error {
	close(f.closed)
	return nil
}

// Addr implements net.Listener.
func (f *fakeHost) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// dial connects to a host of the network.
func (n *fakeNet) dial(ctx context.Context, _, address string) (net.Conn, error) {
	name, _, _ := net.SplitHostPort(address)
	n.mu.Lock()
	n.dialled = append(n.dialled, name)
	f := n.hosts[name]
	n.mu.Unlock()
	if f == nil {
		return nil, fmt.Errorf("dial %s: connection refused", name)
	}
	here, there := net.Pipe()
	select {
	case f.conns <- there:
		return here, nil
	case <-f.closed:
		return nil, fmt.Errorf("dial %s: connection refused", name)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// client returns a client whose hosts, spoken to without TLS, are those of n.
func (n *fakeNet) client(t testing.TB, cfg registry.Config) *registry.Client {
	cfg.DialContext = n.dial
	n.mu.Lock()
	for name := range n.hosts {
		cfg.PlainHTTP = append(cfg.PlainHTTP, name)
	}
	n.mu.Unlock()
	return client(t, cfg)
}
