package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"maps"
)

// errHangs says that something has made no progress.
var errHangs = errors.New("no progress")

// load runs the load on file systems, watched, for as long as was asked for.
func (r *round) load(ctx context.Context, roots []string) error {
	cmd := exec.Command("/proc/self/exe", append([]string{argument, r.group.Dir, r.dir}, roots...)...)
	// It is to leave the memory to what it loads.
	cmd.Env = append(os.Environ(), "GOMEMLIMIT=16MiB", "GOGC=20")
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	w := &watch{since: map[string]time.Time{}, last: progress{}}
	done := make(chan error, 1)
	go func() {
		w.listen(out)
		err := cmd.Wait()
		if err != nil {
			err = fmt.Errorf("the load ended: %w: %s", err, complaint.String())
		}
		done <- err
	}()
	end := time.Now().Add(r.time)
	stopping := false
	for {
		select {
		case err := <-done:
			return errors.Join(err, r.killed())
		case <-time.After(5 * time.Second):
		}
		r.say(w)
		if stuck := w.stuck(r.silence); len(stuck) > 0 {
			r.dump()
			cmd.Process.Kill() //nolint:errcheck // it hangs
			return fmt.Errorf("%w for %v: %s", errHangs, r.silence, strings.Join(stuck, ", "))
		}
		if !stopping && (time.Now().After(end) || ctx.Err() != nil) {
			stopping = true
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				return err
			}
		}
	}
}

// watched does something that must not hang.
func (r *round) watched(ctx context.Context, what string, f func(context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- f(context.WithoutCancel(ctx)) }()
	select {
	case err := <-done:
		return err
	case <-time.After(r.silence):
		r.dump()
		return fmt.Errorf("%s: %w for %v", what, errHangs, r.silence)
	}
}

// watch is what is known of the load.
type watch struct {
	mu    sync.Mutex // protects what follows
	last  progress
	since map[string]time.Time // of each part, when it had done less
}

func (w *watch) listen(out io.Reader) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var p progress
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			continue
		}
		w.mu.Lock()
		for name, n := range p {
			if before, ok := w.last[name]; !ok || n > before {
				w.since[name] = time.Now()
			}
		}
		w.last = p
		w.mu.Unlock()
	}
}

// stuck returns which parts have done nothing for so long. While the load
// compares, it says nothing and has so much time for it.
func (w *watch) stuck(silence time.Duration) (names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, since := range w.since {
		if time.Since(since) > silence {
			names = append(names, fmt.Sprintf("%s (%d)", name, w.last[name]))
		}
	}
	slices.Sort(names)
	return names
}

// killed is an error if processes were killed for want of memory.
func (r *round) killed() error {
	load, own := r.group.Usage(), r.own.Usage()
	fmt.Printf("memory: the load at most %d MB, the daemon %d, of %d\n", load.Peak>>20, own.Peak>>20, r.memory)
	if n := load.Killed + own.Killed; n > 0 {
		return fmt.Errorf("%d processes were killed for want of memory", n)
	}
	return nil
}

func (r *round) say(w *watch) {
	w.mu.Lock()
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(w.last)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, w.last[name]))
	}
	w.mu.Unlock()
	u := r.group.Usage()
	daemon := ""
	if r.daemon != nil {
		daemon = fmt.Sprintf("; the daemon %d MB, its group %d", resident(r.daemon.PID())>>20, r.own.Usage().Bytes>>20)
	}
	fmt.Printf("%s: %d MB, of them %d dirty, %d being written%s; %s\n", time.Now().Format(time.TimeOnly),
		u.Bytes>>20, u.Dirty>>20, u.Writeback>>20, daemon, strings.Join(parts, ", "))
}

// resident returns the memory of a process in bytes.
func resident(pid int) int64 {
	var size, pages int64
	p, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	_, _ = fmt.Sscan(string(p), &size, &pages) // 0 of a process that has ended
	return pages * int64(os.Getpagesize())
}

// dump prints where everybody hangs: the kernel's stacks of all threads that wait
// in it uninterruptibly, or are of the group, and those of the daemon's goroutines.
func (r *round) dump() {
	members, _ := r.group.Processes()
	if r.own != r.group {
		more, _ := r.own.Processes()
		members = append(members, more...)
	}
	tasks, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*")
	for _, task := range tasks {
		stat, _ := os.ReadFile(task + "/stat")
		var pid int
		_, _ = fmt.Sscanf(task, "/proc/%d/", &pid)
		if slices.Contains(members, pid) || bytes.Contains(stat, []byte(") D ")) {
			comm, _ := os.ReadFile(task + "/comm")
			stack, _ := os.ReadFile(task + "/stack")
			_, rest, _ := strings.Cut(string(stat), ") ")
			fmt.Printf("--- %s %s state %.1s\n%s", task, bytes.TrimSpace(comm), rest, stack)
		}
	}
	if r.daemon != nil {
		fmt.Printf("--- goroutines of the daemon\n%s\n", r.daemon.Goroutines(10*time.Second))
	}
}
