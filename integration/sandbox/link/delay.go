package link

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// delay joins two TUN interfaces and keeps each packet for a while. It works
// on packets and not, as a proxy would, on connections, so that windows,
// handshakes and what is in flight are those between the real ends. (The kernel
// could do it with netem, which not every kernel has.)
type delay struct {
	near, far *os.File
	wait      sync.WaitGroup
}

// inFlight bounds the packets that are kept, in one direction: 20 ms of
// 4 Gbit/s. What is more waits in the interface's queue, and is lost if that is
// full.
const inFlight = 8192

// newDelay makes the interfaces, and moves packets until Close.
func newDelay(near, far string, oneWay time.Duration) (*delay, error) {
	var d delay
	var err error
	if d.near, err = tun(near); err != nil {
		return nil, err
	}
	if d.far, err = tun(far); err != nil {
		return nil, errors.Join(err, d.near.Close())
	}
	d.wait.Go(func() { carry(d.far, d.near, oneWay) })
	d.wait.Go(func() { carry(d.near, d.far, oneWay) })
	return &d, nil
}

// Close removes the interfaces.
func (d *delay) Close() {
	d.near.Close()
	d.far.Close()
	d.wait.Wait()
}

func tun(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a TUN interface: %w", err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making TUN interface %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// packet is one that is on its way.
type packet struct {
	data []byte
	due  time.Time
}

// carry takes packets from one interface to the other until either is closed.
func carry(to, from *os.File, oneWay time.Duration) {
	const mtu = 1500
	way := make(chan packet, inFlight)
	free := sync.Pool{New: func() any { b := make([]byte, mtu); return &b }}
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(way)
		for {
			b := *free.Get().(*[]byte)
			n, err := from.Read(b[:mtu])
			if err != nil {
				return
			}
			way <- packet{b[:n], time.Now().Add(oneWay)}
		}
	})
	for p := range way {
		time.Sleep(time.Until(p.due))
		// An interface that is down takes nothing; the packet is lost then.
		to.Write(p.data) //nolint:errcheck // as lines do
		b := p.data[:mtu]
		free.Put(&b)
	}
	reader.Wait()
}
