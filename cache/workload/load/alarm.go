package load

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// fine is from when a wait is given to a timer of the kernel: those of the runtime are
// off by up to a millisecond, and one that is long is not ended by a context.
const fine = 2 * time.Millisecond

// alarm waits for times to some ten microseconds, without spinning.
type alarm struct {
	file *os.File // of a timer of the kernel; nil: the runtime's is all there is
	buf  [8]byte
}

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a timer: %w", os.NewSyscallError("timerfd_create", err))
	}
	return &alarm{file: os.NewFile(uintptr(fd), "timer")}, nil
}

func (a *alarm) close() {
	if a.file != nil {
		a.file.Close()
	}
}

// wait waits for a time and reports whether it came before ctx ended.
func (a *alarm) wait(ctx context.Context, until time.Time) bool {
	d := time.Until(until)
	if a.file != nil && d > 0 {
		if d > fine && !wait(ctx, until.Add(-fine/2)) {
			return false
		}
		a.sleep(time.Until(until))
	}
	return wait(ctx, until)
}

// sleep waits for a short time. What it does not wait for is left to the caller.
func (a *alarm) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	raw, err := a.file.SyscallConn()
	if err != nil {
		return
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	_ = raw.Control(func(fd uintptr) { err = unix.TimerfdSettime(int(fd), 0, &spec, nil) })
	if err == nil {
		_, _ = a.file.Read(a.buf[:])
	}
}
