package channel

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// killCheckInterval is how often the reader of an interrupted read is looked
// at: the kernel sends one INTERRUPT for the first signal and none for those
// that follow, so a SIGKILL after a SIGALRM has to be noticed here.
const killCheckInterval = time.Second

// interrupt handles an INTERRUPT message.
//
// A read from a disk is not interruptible, and what reads here believes to
// read from one: answering EINTR because some signal arrived would make erofs
// report an I/O error to a program that merely uses a timer. Only a process
// that is being killed is let go.
//
// It reports false if the request is not known, perhaps because the goroutine
// that received it is not so far yet: the kernel is to ask again, which it
// does for requests that it still waits for.
func (c *Channel) interrupt(m []byte) bool {
	if len(m) < interruptSize {
		return true
	}
	unique := binary.NativeEndian.Uint64(m[headerInSize:])
	c.mu.Lock()
	r := c.requests[unique]
	c.mu.Unlock()
	if r == nil {
		return false
	}
	r.interrupted.Store(true)
	r.releaseIfKilled()
	return true
}

// releaseIfKilled answers the read with EINTR if its process has SIGKILL
// pending.
func (r *Request) releaseIfKilled() {
	if !killed(r.pid) {
		return
	}
	_ = r.Fail(syscall.EINTR)
	r.cancel(ErrKilled)
}

// releaseKilled looks again at all interrupted reads until ctx ends.
func (c *Channel) releaseKilled(ctx context.Context) {
	t := time.NewTicker(killCheckInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for _, r := range c.pending(func(r *Request) bool { return r.interrupted.Load() }) {
			r.releaseIfKilled()
		}
	}
}

// killed reports whether SIGKILL is pending for thread tid, 0 if it is in a
// PID namespace that is not visible from here.
func killed(tid uint32) bool {
	if tid == 0 {
		return false
	}
	// status needs no lock on the process's memory, unlike cmdline or maps,
	// which would wait for a thread that sleeps in a page fault on us.
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return false
	}
	lines := bufio.NewScanner(bytes.NewReader(status))
	for lines.Scan() {
		key, value, _ := bytes.Cut(lines.Bytes(), []byte(":"))
		if string(key) != "SigPnd" && string(key) != "ShdPnd" {
			continue
		}
		mask, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
		if err == nil && mask&(1<<(uint(syscall.SIGKILL)-1)) != 0 {
			return true
		}
	}
	return false
}
