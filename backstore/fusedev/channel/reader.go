package channel

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// reader is what a goroutine needs to receive requests. There are a few, used
// in turns.
//
// Each has an epoll instance for the FUSE descriptor and the event that ends
// the receiving, and sleeps in epoll_wait(2). That is one system call more than
// to sleep in read(2), which nothing but a request can end, and saves the way
// through Go's poller and another goroutine, which costs a third of the small
// reads per second. EPOLLEXCLUSIVE wakes one reader for each request.
type reader struct {
	epoll int

	// buf is where the kernel copies requests to. A write takes it along.
	buf []byte
	// tail follows it: see tailSize.
	tail []byte
}

// newReader returns a reader of the FUSE descriptor fuse until the eventfd
// event is readable.
func newReader(fuse, event int, tail []byte) (*reader, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("creating an epoll instance: %w", err)
	}
	err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fuse, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLEXCLUSIVE})
	if err == nil {
		err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, event, &unix.EpollEvent{Events: unix.EPOLLIN})
	}
	if err != nil {
		unix.Close(ep)
		return nil, fmt.Errorf("watching /dev/fuse: %w", err)
	}
	return &reader{epoll: ep, buf: newBuffer(), tail: tail}, nil
}

// wait sleeps until there is a request or the event.
func (r *reader) wait() error {
	var events [2]unix.EpollEvent
	if _, err := unix.EpollWait(r.epoll, events[:], -1); err != nil && err != unix.EINTR {
		return fmt.Errorf("waiting for requests: %w", err)
	}
	return nil
}

func (r *reader) close() { unix.Close(r.epoll) }
