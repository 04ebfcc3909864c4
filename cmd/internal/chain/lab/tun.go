package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// tun is a line between this machine and a network namespace that delays every
// packet, which no queueing discipline does everywhere: two interfaces of this
// process, which carries packets from one to the other. Windows of TCP see it as
// they see a long line.
type tun struct {
	near, far *os.File
	wg        sync.WaitGroup
}

// backlog is how much time a packet may spend waiting for those before it, as in
// the limits of package link.
const backlog = 50 * time.Millisecond

// packet is one on its way.
type packet struct {
	data []byte
	due  time.Time
}

// newTun makes the interfaces of l, which has a namespace.
func newTun(ctx context.Context, l *Line) (*tun, error) {
	near, err := openTun(l.near)
	if err != nil {
		return nil, err
	}
	far, err := openTun(l.far)
	if err == nil {
		err = run(ctx, "ip link set "+l.far+" netns "+l.Netns)
	}
	if err != nil {
		return nil, errors.Join(err, near.Close())
	}
	return &tun{near: near, far: far}, nil
}

// carryAll carries packets both ways, with a rate in bytes a second and a round
// trip, until down. Both interfaces are up.
func (t *tun) carryAll(rate float64, roundTrip time.Duration) {
	t.carry(t.near, t.far, rate, roundTrip/2)
	t.carry(t.far, t.near, rate, roundTrip/2)
}

// openTun makes an interface.
func openTun(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /dev/net/tun: %w", err)
	}
	r, err := unix.NewIfreq(name)
	if err == nil {
		r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("making interface %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// carry carries packets from one end to the other until the line is taken down.
func (t *tun) carry(from, to *os.File, rate float64, delay time.Duration) {
	queue := make(chan packet, 1<<14)
	t.wg.Go(func() {
		defer close(queue)
		var free time.Time // when the line has sent all before
		for {
			buf := make([]byte, 2048)
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			now := time.Now()
			if free.Before(now) {
				free = now
			}
			if free.Sub(now) > backlog {
				continue // lost, as in a queue that is full
			}
			free = free.Add(time.Duration(float64(n) / rate * float64(time.Second)))
			select {
			case queue <- packet{buf[:n], free.Add(delay)}:
			default:
			}
		}
	})
	t.wg.Go(func() {
		for p := range queue {
			time.Sleep(time.Until(p.due))
			if _, err := to.Write(p.data); err != nil {
				for range queue { //nolint:revive // until the other end is closed
				}
				return
			}
		}
	})
}

// down removes both interfaces.
func (t *tun) down() {
	t.near.Close()
	t.far.Close()
	t.wg.Wait()
}
