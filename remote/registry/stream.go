package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry/transport"
)

// firstWindow is what a Stream lets be in flight at first, in bytes.
const firstWindow = 64 << 10

// Stream is a blob from some offset to its end, as it arrives by one request on
// a connection of its own. What it does not read, the registry soon stops to
// send: see SetWindow. Nothing it returns is verified.
type Stream struct {
	body      io.ReadCloser
	conn      *streamConn
	host      string
	name      string
	ctx       context.Context //nolint:containedctx // of the request under way, to tell why it ended
	left      int64
	firstByte time.Duration
}

// Stream asks for the bytes of the blob desc, in the repository of ref, from off
// on: one attempt at every host. A host that ignores ranges will do for offset
// 0. The stream ends with io.EOF at the end of the blob, with an error if it
// breaks before, and with ctx. The caller closes it.
func (c *Client) Stream(ctx context.Context, ref string, desc ocispec.Descriptor, off int64) (*Stream, error) {
	opened, err := c.Open(ref, desc)
	if err != nil {
		return nil, err
	}
	b := opened.(*remoteBlob) //nolint:forcetypeassert // as Open makes it
	if off < 0 || off > desc.Size {
		return nil, blob.Permanent(fmt.Errorf("streaming %s: no offset %d in %d bytes", b.name, off, desc.Size))
	}
	if off == desc.Size {
		return &Stream{body: http.NoBody, conn: &streamConn{}, name: b.name, ctx: ctx}, nil
	}
	var s *Stream
	err = c.eachOf(ctx, b.ref, docker.HostCapabilityPull, b.order, func(e *endpoint) error {
		s, err = b.stream(ctx, e.streaming, off)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("streaming from offset %d: %w", off, err)
	}
	return s, nil
}

// stream is Client.Stream at one host.
func (b *remoteBlob) stream(ctx context.Context, e *endpoint, off int64) (*Stream, error) {
	rq := b.request(0, off)
	rq.header.Set("Range", "bytes="+strconv.FormatInt(off, 10)+"-")
	n := int(b.desc.Size - off)
	conn := &streamConn{bytes: firstWindow}
	var clock firstByte
	resp, err := b.c.fetch(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:              func(i httptrace.GotConnInfo) { conn.use(i.Conn) },
		WroteRequest:         func(httptrace.WroteRequestInfo) { clock.sent() },
		GotFirstResponseByte: clock.got,
	}), e, rq)
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		resp.Body.Close()
		return nil, violation(resp, b.name, "there is nothing at %d: the blob should have %d bytes, but the registry says %q",
			off, b.desc.Size, resp.Header.Get("Content-Range"))
	case resp.StatusCode/100 != 2:
		return nil, statusError(resp, b.name)
	}
	if err := b.checkRange(resp, n, off); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return &Stream{
		body: resp.Body, conn: conn, host: resp.Request.URL.Host, name: b.name, ctx: ctx,
		left: int64(n), firstByte: clock.took(),
	}, nil
}

// Read implements io.Reader.
func (s *Stream) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	if err := s.ctx.Err(); err != nil { // what lies here already would be returned all the same
		return 0, requestError(s.ctx, s.host, s.name, err)
	}
	n, err := s.body.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	s.conn.read(n)
	switch {
	case s.left == 0:
		return n, nil // the next call tells
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		err = requestError(s.ctx, s.host, s.name, fmt.Errorf("stream ended %d bytes early: %w", s.left, err))
	}
	return n, err
}

// Close implements io.Closer. A connection with something left to read is closed.
func (s *Stream) Close() error { return s.body.Close() }

// SetWindow bounds what is in flight: sent by the registry, or about to be, and
// not read. It has an effect on TCP connections of Linux, which do
// not take back what they allowed before. A stream starts with 64 KiB.
func (s *Stream) SetWindow(n int) { s.conn.set(n) }

// Unread returns how many bytes of the connection lie here unread, about.
func (s *Stream) Unread() int {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if s.conn.window == nil {
		return 0
	}
	return s.conn.window.Unread()
}

// FirstByte returns how long the registry took to answer: one round trip and the
// time it needed for itself.
func (s *Stream) FirstByte() time.Duration { return s.firstByte }

// streamConn is the connection of the latest request of a stream.
type streamConn struct {
	mu     sync.Mutex
	window *transport.Window // nil if it has none
	bytes  int               // wanted
}

func (c *streamConn) use(conn any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w, ok := transport.NewWindow(conn); ok {
		c.window = w
		w.Set(c.bytes)
	}
}

func (c *streamConn) set(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bytes = n; c.window != nil {
		c.window.Set(n)
	}
}

func (c *streamConn) read(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.window != nil {
		c.window.Read(n)
	}
}

// firstByte is a clock from a request to the first byte of its answer. net/http
// calls it on goroutines of its own.
type firstByte struct{ start, end atomic.Int64 }

func (f *firstByte) sent() { f.start.Store(time.Now().UnixNano()) }

func (f *firstByte) got() { f.end.Store(time.Now().UnixNano()) }

func (f *firstByte) took() time.Duration {
	return max(time.Duration(f.end.Load()-f.start.Load()), 0)
}
