package channel

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// fileWrites is how many writes of one file the kernel has in flight. It is
	// what package mounter limits loop devices to.
	fileWrites = 32
	// spareWrites is how many more there may be, of whoever writes to files
	// without a loop device.
	spareWrites = 64
	// keptPayloads is how many buffers are kept when they are not used.
	keptPayloads = 32
)

// newBuffer returns a buffer that holds any request, and is resident: see the
// package comment.
func newBuffer() []byte {
	const page = 4096
	buf := make([]byte, bufferSize)
	for i := 0; i < len(buf); i += page {
		buf[i] = 1
	}
	return buf
}

// newTail returns what follows buffers when they are read into. Nothing comes to
// lie there, so all readers have the same, and it takes no memory.
func newTail() ([]byte, error) {
	tail, err := unix.Mmap(-1, 0, tailSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("mapping %d bytes behind buffers: %w", tailSize, err)
	}
	return tail, nil
}

// payloads lends buffers to readers whose own has a write in it: as many as the
// kernel has writes in flight, so that a file whose writes do not end holds up no
// other.
type payloads struct {
	mu    sync.Mutex // protects what follows
	freed sync.Cond  // more may be lent
	kept  [][]byte
	lent  int
	limit int
	open  bool // lend without a limit
}

func newPayloads() *payloads {
	p := &payloads{limit: spareWrites}
	p.freed.L = &p.mu
	return p
}

// borrow returns a buffer, and waits for one if the limit is reached.
func (p *payloads) borrow() []byte {
	p.mu.Lock()
	for p.lent >= p.limit && !p.open {
		p.freed.Wait()
	}
	p.lent++
	if last := len(p.kept) - 1; last >= 0 {
		buf := p.kept[last]
		p.kept = p.kept[:last]
		p.mu.Unlock()
		return buf
	}
	p.mu.Unlock()
	return newBuffer()
}

// giveBack takes a buffer from borrow, or a reader's for which one was borrowed.
func (p *payloads) giveBack(buf []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lent--
	if len(p.kept) < keptPayloads {
		p.kept = append(p.kept, buf)
	}
	p.freed.Signal()
}

// grow changes the limit by the writes of a number of files.
func (p *payloads) grow(files int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit += files * fileWrites
	p.freed.Broadcast()
}

// unlimit ends all waiting. Readers that receive nothing more can take one
// buffer each.
func (p *payloads) unlimit() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = true
	p.freed.Broadcast()
}
