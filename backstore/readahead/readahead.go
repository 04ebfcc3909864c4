package readahead

import (
	"context"
	"sync"
	"time"

	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/remote/blob"
)

const chunk = 128 << 10 // bytes of one background read

// Device reads through to another device and reads ahead as a Policy says, in the
// background only while Run is active. Of what is held locally nothing is read
// ahead.
type Device struct {
	device.Device
	quiet    func() time.Duration
	counters *Counters
	work     chan Span

	mu     sync.Mutex
	policy Policy // nil if nothing is read ahead
	unread unread
	gain   gain
}

// Shared is what a device has in common with others.
type Shared struct {
	// Quiet returns for how long nobody has been waiting for the registry of the
	// device, 0 if somebody is, or if starts are replayed from it: then nothing is
	// read ahead but for sequential readers. Without it nobody but the caller ever
	// is.
	Quiet func() time.Duration
	// Counters count what is read ahead; nil if nobody wants to know.
	Counters *Counters
}

// New returns d with readahead.
func New(d device.Device, cfg Config) *Device { return NewShared(d, cfg, Shared{}) }

// NewShared is New for a device that has something in common with others.
func NewShared(d device.Device, cfg Config, shared Shared) *Device {
	if shared.Counters == nil {
		shared.Counters = new(Counters)
	}
	return &Device{
		Device: d, quiet: shared.Quiet, counters: shared.Counters, work: make(chan Span, 1),
		policy: cfg.policy(d.Size()), unread: make(unread),
	}
}

// ReadAt implements device.Device.
func (d *Device) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if d.policy == nil {
		return d.Device.ReadAt(ctx, p, off)
	}
	asked := Span{off, off + int64(len(p))}
	ahead := d.enter(asked)
	if b := ahead.Background; b.Off < b.End {
		select {
		case d.work <- b:
		default: // the link is busy with the last span
		}
	}
	if ahead.Read != asked && !blob.Present(d.Device, off, int64(len(p))) {
		if n, ok := d.readMore(ctx, p, ahead, asked); ok {
			return n, nil
		}
		// What failed may be what nobody asked for.
	}
	return d.Device.ReadAt(ctx, p, off)
}

// enter enters a read.
func (d *Device) enter(asked Span) Ahead {
	d.mu.Lock()
	defer d.mu.Unlock()
	used := d.unread.take(asked)
	d.gain.used += used
	d.counters.used.Add(used)
	n := asked.End - asked.Off
	ahead := d.policy.Next(asked.Off, n)
	if d.gain.poor() {
		d.gain.forgive(n)
		return Ahead{Read: asked}
	}
	return ahead
}

// readAhead counts a span that was read before anybody asked for it; d.mu is held.
func (d *Device) readAhead(s Span) {
	n := d.unread.add(s)
	d.gain.read(n)
	d.counters.ahead.Add(n)
}

// readMore reads what was asked for, of which something is missing, together with
// what is to be read ahead around it. It reports whether that worked.
func (d *Device) readMore(ctx context.Context, p []byte, ahead Ahead, asked Span) (int, bool) {
	if ahead.Polite && d.quiet != nil && d.quiet() == 0 {
		d.counters.impolite.Add(1)
		return 0, false
	}
	s := d.absent(ahead.Read, asked)
	more := make([]byte, s.End-s.Off)
	start := time.Now()
	if got, _ := d.Device.ReadAt(ctx, more, s.Off); got != len(more) {
		return 0, false
	}
	took := time.Since(start)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.policy.Observe(s.End-s.Off, took)
	d.readAhead(Span{s.Off, asked.Off})
	d.readAhead(Span{asked.End, s.End})
	return copy(p, more[asked.Off-s.Off:]), true
}

// absent returns what of s, around what was asked for, is not held locally: with
// a hole in it, a longer read would be several requests.
func (d *Device) absent(s, asked Span) Span {
	out := asked
	for out.Off > s.Off {
		n := min(align, out.Off-s.Off)
		if blob.Present(d.Device, out.Off-n, n) {
			break
		}
		out.Off -= n
	}
	for out.End < s.End {
		n := min(align, s.End-out.End)
		if blob.Present(d.Device, out.End, n) {
			break
		}
		out.End += n
	}
	return out
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
func (d *Device) fetch(ctx context.Context, s Span) {
	var p []byte // most spans of a local image need none
	for off := s.Off; off < s.End; off += chunk {
		n := min(chunk, s.End-off)
		if blob.Present(d.Device, off, n) {
			continue
		}
		if p == nil {
			p = make([]byte, min(chunk, s.End-s.Off))
		}
		if _, err := d.Device.ReadAt(ctx, p[:n], off); err != nil {
			return
		}
		d.mu.Lock()
		d.readAhead(Span{off, off + n})
		d.mu.Unlock()
	}
}
