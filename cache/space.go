package cache

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// space watches how much others leave free on the disk.
type space struct {
	min  int64        // bytes to leave free, 0 for no such limit
	free atomic.Int64 // as measured, less what was stored since
}

func (s *space) init(min int64) {
	s.min = min
	s.free.Store(math.MaxInt64)
}

// take reports whether n bytes can be stored, and counts them.
func (s *space) take(n int64) bool {
	if s.min == 0 {
		return true
	}
	if s.free.Load()-n < s.min {
		return false
	}
	s.free.Add(-n)
	return true
}

// measureSpace asks the file system. When it does not answer, the last answer
// stands.
func (c *Cache) measureSpace() {
	if c.space.min == 0 {
		return
	}
	if free, err := c.fs.Free(); err == nil {
		c.space.free.Store(free)
	}
}

// shrink gives up content when too little is free, and reports whether it had
// to. What it gives up is bounded, because giving up does not help if others
// go on filling the disk.
func (c *Cache) shrink() bool {
	missing := c.space.min - c.space.free.Load()
	used := c.used.Load()
	if c.space.min == 0 || missing <= 0 || used <= 0 {
		return false
	}
	if err := c.evictTo(used - min(missing, used/4+1)); err != nil {
		c.failed(err)
	}
	c.measureSpace()
	return true
}

// fullDiskRoom is what is given up when a store finds the disk full.
const fullDiskRoom = 4 << 20

// makeRoomOnFullDisk gives up a little after err said that the disk is full.
// Stores pause after an error, so this happens seldom.
func (c *Cache) makeRoomOnFullDisk(err error) {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return
	}
	if used := c.used.Load(); used > 0 {
		if err := c.evictTo(max(0, used-min(fullDiskRoom, used/4+1))); err != nil {
			c.failed(err)
		}
	}
}

// faults remembers that the disk fails, so that it is tried again at growing
// intervals and reported once.
type faults struct {
	notify func(error)
	until  atomic.Int64 // Unix nanoseconds before which nothing is stored

	mu    sync.Mutex
	delay time.Duration // 0 while all is well
	last  string
}

const (
	firstPause = time.Second
	maxPause   = time.Minute
)

// failed remembers an error of the disk and pauses storing.
func (f *faults) failed(err error) {
	if errors.Is(err, ErrClosed) {
		return // not the disk's fault
	}
	f.mu.Lock()
	first := f.delay == 0
	now := time.Now().UnixNano()
	if !f.waits(now) { // one step for the errors of one moment
		f.delay = min(max(2*f.delay, firstPause), maxPause)
		f.until.Store(now + int64(f.delay))
	}
	f.last = err.Error()
	f.mu.Unlock()
	if first && f.notify != nil {
		f.notify(err)
	}
}

// worked says that a store succeeded.
func (f *faults) worked() {
	if f.until.Load() == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.paused() {
		f.delay = 0
		f.until.Store(0)
	}
}

// paused reports whether storing waits for the disk to recover.
func (f *faults) paused() bool { return f.until.Load() != 0 && f.waits(time.Now().UnixNano()) }

// waits reports whether storing waits at the time now. A pause that is longer than
// any was begun before the clock was set back.
func (f *faults) waits(now int64) bool {
	left := f.until.Load() - now
	return left > 0 && left <= int64(maxPause)
}

func (f *faults) lastError() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}
