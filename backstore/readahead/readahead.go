// Package readahead reads ahead over a device on the daemon's own account.
//
// While an image is cold the kernel's readahead is off, because FUSE cannot
// tell readahead from need (see docs/device.md): a program that reads a file
// from front to back then asks for one page at a time and pays a round trip
// for each. This package watches the reads of a device for sequential streams
// and fetches ahead of them, as background reads that give way to demand at
// the connection limit. What it may waste is bounded: never more ahead than
// half of what the stream has already read.
package readahead

import (
	"context"
	"sync"

	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/remote/blob"
)

// Config bounds the readahead of one device.
type Config struct {
	// Trigger is how many bytes a stream must have read in sequence before
	// anything is read ahead of it.
	Trigger int64
	// Max is the largest distance in bytes to read ahead; 0 turns it off.
	Max int64
}

// DefaultConfig costs a start little: programs map their files and touch them
// in short runs, which stay below the trigger.
var DefaultConfig = Config{Trigger: 256 << 10, Max: 1 << 20}

const (
	streams = 16        // readers in parallel that are told apart
	chunk   = 128 << 10 // bytes of one background read
	align   = 4 << 10   // bytes; a span ends on such a boundary
)

// Device reads through to another device and reads ahead of sequential
// streams while Run is active. Reads that are answered locally are not
// watched for, so a local image costs nothing.
type Device struct {
	device.Device
	cfg  Config
	work chan span

	mu      sync.Mutex
	streams []stream // most recently used first
}

// stream is a run of adjacent reads.
type stream struct {
	next  int64 // offset behind the last read
	run   int64 // bytes read in sequence
	ahead int64 // offset behind the last span asked for
}

type span struct{ off, end int64 }

// New returns d with readahead. Nothing is read ahead until Run is called.
func New(d device.Device, cfg Config) *Device {
	return &Device{Device: d, cfg: cfg, work: make(chan span, 1)}
}

// ReadAt implements device.Device.
func (d *Device) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if s, ok := d.plan(off, int64(len(p))); ok {
		select {
		case d.work <- s:
		default: // the link is busy with the last span
		}
	}
	return d.Device.ReadAt(ctx, p, off)
}

// plan enters a read and returns the span to read ahead of it, if any.
func (d *Device) plan(off, n int64) (span, bool) {
	if d.cfg.Max == 0 {
		return span{}, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stream(off, n)
	if s.run < d.cfg.Trigger {
		return span{}, false
	}
	window := min(s.run/2, d.cfg.Max)
	// The read after this one will be on its way before the span is.
	from := max(s.ahead, s.next+n)
	to := min(s.next+window, d.Size()) / align * align
	if to-from < window/2 {
		return span{}, false
	}
	s.ahead = to
	return span{from, to}, true
}

// stream returns the stream that [off, off+n) continues, or a new one, as the
// most recently used. The caller holds mu.
func (d *Device) stream(off, n int64) *stream {
	i := 0
	for i < len(d.streams) && d.streams[i].next != off {
		i++
	}
	s := stream{next: off}
	switch {
	case i < len(d.streams):
		s = d.streams[i]
	case len(d.streams) < streams:
		d.streams = append(d.streams, stream{})
	default:
		i--
	}
	copy(d.streams[1:i+1], d.streams[:i])
	s.next += n
	s.run += n
	d.streams[0] = s
	return &d.streams[0]
}

// Run reads ahead until ctx ends.
func (d *Device) Run(ctx context.Context) error {
	ctx = blob.WithPriority(ctx, blob.Background)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s := <-d.work:
			d.fetch(ctx, s)
		}
	}
}

// fetch reads a span for its effect on the cache below. Errors are dropped:
// whoever needs the bytes asks again and is told.
func (d *Device) fetch(ctx context.Context, s span) {
	p := make([]byte, min(chunk, s.end-s.off))
	for off := s.off; off < s.end; off += chunk {
		n := min(chunk, s.end-off)
		if blob.Present(d.Device, off, n) {
			continue
		}
		if _, err := d.Device.ReadAt(ctx, p[:n], off); err != nil {
			return
		}
	}
}
