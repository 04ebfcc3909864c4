package devicetest

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/remote/blob/pause"
)

// Bytes returns a device with the given contents, which it keeps.
func Bytes(contents []byte) device.Device { return memory(contents) }

type memory []byte

func (m memory) Size() int64 { return int64(len(m)) }

func (m memory) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	if off >= int64(len(m)) {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n := copy(p, m[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Delay returns d with every read taking at least delay longer.
func Delay(d device.Device, delay time.Duration) device.Device {
	return &delayed{Device: d, delay: delay}
}

type delayed struct {
	device.Device
	delay time.Duration
}

func (d *delayed) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if !pause.For(ctx, d.delay) {
		return 0, context.Cause(ctx)
	}
	return d.Device.ReadAt(ctx, p, off)
}

// ErrInjected is the error of failing devices.
var ErrInjected = errors.New("injected failure")

// FailEvery returns d with every n-th read failing with ErrInjected.
func FailEvery(d device.Device, n int64) device.Device {
	return &failing{Device: d, n: n}
}

type failing struct {
	device.Device
	n     int64
	reads atomic.Int64
}

func (d *failing) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if d.reads.Add(1)%d.n == 0 {
		return 0, ErrInjected
	}
	return d.Device.ReadAt(ctx, p, off)
}

// Hanging is a device whose reads can be made to hang.
type Hanging struct {
	device.Device
	gate  atomic.Pointer[chan struct{}]
	stuck atomic.Int64
}

// NewHanging returns d with reads that hang between Hang and Resume.
func NewHanging(d device.Device) *Hanging { return &Hanging{Device: d} }

// Hang makes reads from now on wait for Resume or the end of their context.
func (d *Hanging) Hang() {
	gate := make(chan struct{})
	d.gate.CompareAndSwap(nil, &gate)
}

// Resume lets all reads go on.
func (d *Hanging) Resume() {
	if gate := d.gate.Swap(nil); gate != nil {
		close(*gate)
	}
}

// Stuck returns the number of reads that hang.
func (d *Hanging) Stuck() int { return int(d.stuck.Load()) }

// ReadAt implements device.Device.
func (d *Hanging) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if gate := d.gate.Load(); gate != nil {
		d.stuck.Add(1)
		defer d.stuck.Add(-1)
		select {
		case <-*gate:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	return d.Device.ReadAt(ctx, p, off)
}
