package zfile

import (
	"sync"
	"weak"
)

// recent keeps the last decoded blocks of a file for reads of less than a
// block: with kernel readahead off, a sequential reader of 4 KiB pages asks
// for each 32 KiB block eight times. Blocks are held by weak pointers, so a
// file nobody reads costs no memory, however many are open.
type recent struct {
	slots [4]slot // parallel readers in different blocks mostly use different slots
}

type slot struct {
	mu  sync.Mutex
	ref weak.Pointer[decoded]
}

type decoded struct {
	block int64 // -1: none
	data  []byte
}

func (c *recent) slot(block int64) *slot {
	return &c.slots[uint64(block)%uint64(len(c.slots))]
}

// read copies the bytes of block from offset at on to p, if it is held.
func (c *recent) read(p []byte, block int64, at int) bool {
	s := c.slot(block)
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.ref.Value()
	if d == nil || d.block != block {
		return false
	}
	copy(p, d.data[at:])
	return true
}

// fill decodes a block of size bytes with the given function, which must not
// wait for anything, keeps it, and copies its bytes from offset at on to p.
func (c *recent) fill(p []byte, block int64, size, at int, decode func(dst []byte) error) error {
	s := c.slot(block)
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.ref.Value()
	if d == nil {
		d = &decoded{}
		s.ref = weak.Make(d)
	}
	d.block = -1
	if cap(d.data) < size {
		// The zstd decoder is faster where it may write past the end.
		d.data = make([]byte, size, size+decodeSlack)
	}
	d.data = d.data[:size]
	if err := decode(d.data); err != nil {
		return err
	}
	d.block = block
	copy(p, d.data[at:])
	return nil
}

// decodeSlack is the room after a block with which the zstd decoder takes its
// fast path.
const decodeSlack = 64
