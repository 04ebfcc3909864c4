// Package terminal shows people that something that takes seconds goes on: one
// line on a terminal, rewritten in place, and nothing at all on pipes and files.
package terminal

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// interval is how often a progress line is redrawn: quick enough to look
// alive, slow enough to cost nothing.
const interval = 200 * time.Millisecond

// eraseLine returns the cursor to the first column and clears what is there.
const eraseLine = "\r\x1b[K"

// Is reports whether w is a terminal.
func Is(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// During runs work and, meanwhile, keeps a line on w up to date with what text
// returns; the line is gone when During returns. A nil w shows nothing. text
// is called from another goroutine than work.
func During(w io.Writer, text func() string, work func() error) error {
	if w == nil {
		return work()
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-done:
				fmt.Fprint(w, eraseLine)
				return
			case <-tick.C:
				fmt.Fprint(w, eraseLine+text())
			}
		}
	})
	defer wg.Wait()
	defer close(done)
	return work()
}

// Clear erases the line that During may be showing on w, so that a message can
// take its place. A nil w has none.
func Clear(w io.Writer) {
	if w != nil {
		fmt.Fprint(w, eraseLine)
	}
}

// Bytes formats n bytes for people, in powers of 1024.
func Bytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/unit, 0
	for v >= unit && i < len("KMGTPE")-1 {
		v, i = v/unit, i+1
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTPE"[i])
}
