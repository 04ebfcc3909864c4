package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Registry answers requests for blobs and knows what it has sent.
type Registry struct {
	// Host is what references call it.
	Host string
	// Requests and Bytes are how many requests came, and how many bytes of
	// blobs were handed to the network.
	Requests, Bytes atomic.Int64

	blobs  map[string][]byte // by digest
	server *http.Server
	done   chan struct{}

	mu    sync.Mutex
	conns map[string]*net.TCPConn // by the client's address
}

// NewRegistry starts a registry in a network namespace, "" for this one. It must
// be closed.
func NewRegistry(netns, address string, blobs map[string][]byte) (*Registry, error) {
	l, err := listen(netns, address)
	if err != nil {
		return nil, fmt.Errorf("listening in network namespace %q: %w", netns, err)
	}
	r := &Registry{
		Host: l.Addr().String(), blobs: blobs, done: make(chan struct{}), conns: make(map[string]*net.TCPConn),
	}
	r.server = &http.Server{
		Handler: http.HandlerFunc(r.serve), ReadHeaderTimeout: time.Minute,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if tcp, ok := c.(*net.TCPConn); ok {
				r.mu.Lock()
				r.conns[c.RemoteAddr().String()] = tcp
				r.mu.Unlock()
			}
			return ctx
		},
		ConnState: func(c net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				r.mu.Lock()
				delete(r.conns, c.RemoteAddr().String())
				r.mu.Unlock()
			}
		},
	}
	go func() {
		defer close(r.done)
		r.server.Serve(l) //nolint:errcheck // it ends with Close
	}()
	return r, nil
}

// listen listens in a network namespace: a socket stays in the one it was made
// in.
func listen(netns, address string) (net.Listener, error) {
	if netns == "" {
		return net.Listen("tcp", address)
	}
	type made struct {
		l   net.Listener
		err error
	}
	result := make(chan made)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		f, err := os.Open("/run/netns/" + netns)
		if err == nil {
			defer f.Close()
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
		}
		if err != nil {
			result <- made{nil, err}
			return
		}
		l, err := net.Listen("tcp", address)
		result <- made{l, err}
	}()
	m := <-result
	return m.l, m.err
}

func (r *Registry) serve(w http.ResponseWriter, q *http.Request) {
	r.Requests.Add(1)
	data, ok := r.blobs[q.URL.Path[strings.LastIndex(q.URL.Path, "/")+1:]]
	if !ok {
		http.NotFound(w, q)
		return
	}
	http.ServeContent(counting{w, r}, q, "", time.Time{}, bytes.NewReader(data))
}

// counting counts what a response sends.
type counting struct {
	http.ResponseWriter
	r *Registry
}

func (c counting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.r.Bytes.Add(int64(n))
	return n, err
}

// Sent returns how many bytes were sent on each connection so far, by the
// address of the client.
func (r *Registry) Sent() (map[string]int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sent := make(map[string]int64)
	for address, c := range r.conns {
		raw, err := c.SyscallConn()
		if err != nil {
			return nil, err
		}
		var info *unix.TCPInfo
		var get error
		err = raw.Control(func(fd uintptr) {
			info, get = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		})
		if errors.Is(err, net.ErrClosed) {
			continue
		}
		if err := errors.Join(err, get); err != nil {
			return nil, fmt.Errorf("asking about a connection: %w", err)
		}
		sent[address] = int64(info.Bytes_sent - info.Bytes_retrans)
	}
	return sent, nil
}

// Close ends the registry.
func (r *Registry) Close() error {
	err := r.server.Close()
	<-r.done
	return err
}

// Client is what was read of connections to a registry.
type Client struct {
	mu   sync.Mutex
	read map[string]*atomic.Int64 // by their own address
}

// Dial makes a connection whose bytes are counted.
func (c *Client) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn, nil
	}
	n := new(atomic.Int64)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.read == nil {
		c.read = make(map[string]*atomic.Int64)
	}
	c.read[conn.LocalAddr().String()] = n
	return &counted{tcp, n}, nil
}

// counted is a connection whose file descriptor can still be had.
type counted struct {
	*net.TCPConn
	n *atomic.Int64
}

// Read implements net.Conn.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// InFlight returns how many bytes the registry has sent that the client did not
// read, of all connections.
func (c *Client) InFlight(r *Registry) (int64, error) {
	sent, err := r.Sent()
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var n int64
	for address, bytes := range sent {
		if read := c.read[address]; read != nil {
			n += max(bytes-read.Load(), 0)
		}
	}
	return n, nil
}
