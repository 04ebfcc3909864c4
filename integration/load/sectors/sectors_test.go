package sectors_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"github.com/reprise-containers/reprise/integration/load/sectors"
	"github.com/reprise-containers/reprise/integration/loopdev"
)

const size = 8 << 20

// aligned copies for direct I/O.
func aligned(p []byte) []byte {
	b := make([]byte, len(p)+4096)
	b = b[-uintptr(unsafe.Pointer(unsafe.SliceData(b)))%4096:][:len(p)]
	copy(b, p)
	return b
}

// loop returns a plain loop device over a plain file.
func loop(t testing.TB) sectors.Disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("loop devices need root")
	}
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	dev, err := loopdev.AttachWritable(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Detach(); err != nil {
			t.Error(err)
		}
	})
	d, err := sectors.Open(dev.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func newLoad(t testing.TB, seed uint64) *sectors.Load {
	t.Helper()
	l, err := sectors.New(size, 4, seed)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// load loads a disk with so many operations more, then does end, and waits.
func load(t testing.TB, l *sectors.Load, d sectors.Disk, ops int64, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	begin := total(l)
	go func() { done <- l.Run(ctx, d) }()
	for total(l) < begin+ops {
		select {
		case err := <-done:
			t.Fatalf("the load ended: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	end()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func total(l *sectors.Load) (n int64) {
	for _, k := range l.Done() {
		n += k
	}
	return n
}

// TestLoop loads a plain loop device: nothing is wrong with it, through the
// device or below it.
func TestLoop(t *testing.T) {
	d := loop(t)
	l := newLoad(t, 1)
	for range 5 {
		load(t, l, d, 300, func() {})
		s, err := l.Check(d, l.Acknowledged())
		if err != nil {
			t.Fatal(err)
		}
		if s.Newer != 0 {
			t.Errorf("%d sectors are newer than what was acknowledged, with nothing in progress", s.Newer)
		}
	}
	t.Log("writes, discards, zeroes, flushes:", l.Done())
}

// TestFaults takes the power of disks again and again: the good one passes,
// every other one is found out.
func TestFaults(t *testing.T) {
	for _, f := range []fault{none, dropsWrite, tearsSector, misplaces, forgetsFlush, forgetsPart, dropsDiscard, dropsZero,
		zeroesTooMuch, repeatsOld, shadows} {
		t.Run(string("disk that "+f), func(t *testing.T) {
			err := cycles(t, newDisk(loop(t), f, 7), 6)
			var fault *sectors.FaultError
			switch {
			case f == none && err != nil:
				t.Errorf("a good disk: %v", err)
			case f != none && !errors.As(err, &fault):
				t.Errorf("a disk that %s passes: %v", f, err)
			case f != none:
				t.Log(fault.First[0])
			}
		})
	}
}

// cycles loads a disk, takes its power and checks it.
func cycles(t *testing.T, d *disk, n int) error {
	l := newLoad(t, 2)
	for range n {
		load(t, l, d, 200, d.cut)
		if err := d.restore(); err != nil {
			t.Fatal(err)
		}
		s, err := l.Check(d, l.Durable())
		if err != nil {
			return err
		}
		l.Adopt(s)
	}
	return nil
}

// TestLostCache loses what was acknowledged and not flushed: a fault only for
// those who may not forget it.
func TestLostCache(t *testing.T) {
	d := newDisk(loop(t), none, 3)
	l := newLoad(t, 3)
	load(t, l, d, 200, func() {})
	all, durable := l.Acknowledged(), l.Durable()
	if _, err := l.Check(d, all); err != nil {
		t.Errorf("before the loss: %v", err)
	}
	if err := d.restore(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Check(d, durable); err != nil {
		t.Errorf("after the loss: %v", err)
	}
	var fault *sectors.FaultError
	if _, err := l.Check(d, all); !errors.As(err, &fault) {
		t.Errorf("a loss of what was acknowledged is not found: %v", err)
	}
}

// TestPicture checks a picture that is taken while the load goes on.
func TestPicture(t *testing.T) {
	d := newDisk(loop(t), none, 4)
	l := newLoad(t, 4)
	load(t, l, d, 200, func() {})
	floor := l.Acknowledged()
	load(t, l, d, 30, func() {})
	buf := aligned(make([]byte, size))
	if err := d.ReadAt(buf, 0); err != nil {
		t.Fatal(err)
	}
	load(t, l, d, 200, func() {})
	read := sectors.ReaderFunc(func(p []byte, off int64) error { copy(p, buf[off:]); return nil })
	if _, err := l.Check(read, floor); err != nil {
		t.Errorf("a picture of a moment: %v", err)
	}
	var fault *sectors.FaultError
	if _, err := l.Check(read, l.Acknowledged()); !errors.As(err, &fault) {
		t.Errorf("an old picture passes for a new one: %v", err)
	}
}
