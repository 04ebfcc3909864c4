package mounter

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pollInterval is how often a child looks at what it waits for.
const pollInterval = 10 * time.Millisecond

// errAbandoned ends a job whose parent does not want it any more.
var errAbandoned = errors.New("given up by the parent process")

// Main is the child process: it does the job on stdin and writes the result to
// stdout.
func Main() error {
	// The end of the parent is noticed on stdin; it must not kill.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM)
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("reading the job: %w", err)
	}
	var job Job
	if err := json.Unmarshal(line, &job); err != nil {
		return fmt.Errorf("parsing the job: %w", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	// Ends with the process.
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel(errAbandoned)
	}()
	out := json.NewEncoder(os.Stdout)
	res, err := job.do(ctx, out)
	if err != nil {
		res.Error, res.Busy = err.Error(), errors.Is(err, unix.EBUSY)
	}
	return out.Encode(res)
}

// do does the job. A result before the last one goes to out.
func (j Job) do(ctx context.Context, out *json.Encoder) (Result, error) {
	switch j.Op {
	case opMount:
		return j.mount(ctx)
	case opUnmount:
		return j.unmount(ctx)
	case opDetach:
		return Result{}, j.detach(ctx)
	case opReadahead:
		return Result{}, j.readahead()
	case opFormat:
		return j.format(ctx)
	case opLoop:
		return j.loop(ctx)
	case opUnloop:
		return j.unloop(ctx)
	case opFreeze:
		return j.freeze(ctx, func() error { return out.Encode(Result{Frozen: true}) })
	case opThaw:
		return j.thawTargets(ctx)
	case opGrow:
		return j.grow(ctx)
	}
	return Result{}, fmt.Errorf("unknown operation %q", j.Op)
}

// lock takes the lock called name and keeps it until the process ends. It is
// how a job waits for an earlier one, perhaps an abandoned one of a daemon that
// was killed, to have finished with the same mount point.
func (j Job) lock(ctx context.Context, name string) error {
	path := j.lockFile(name)
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return fmt.Errorf("opening %s: %w", path, err)
		}
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && current(fd, path) {
			return nil
		}
		unix.Close(fd)
		if err != nil && err != unix.EWOULDBLOCK && err != unix.EINTR {
			return fmt.Errorf("locking %s: %w", path, err)
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("waiting for an earlier job on %s: %w", name, err)
		}
	}
}

func (j Job) lockFile(name string) string {
	return filepath.Join(j.Dir, strings.ReplaceAll(strings.TrimPrefix(name, "/"), "/", ":")+".lock")
}

// current reports whether fd is the file at path: a job that leaves no trace
// removes its lock file while it has the lock.
func current(fd int, path string) bool {
	var have, want unix.Stat_t
	return unix.Fstat(fd, &have) == nil && unix.Lstat(path, &want) == nil &&
		have.Ino == want.Ino && have.Dev == want.Dev
}

// wanted returns an error if the parent process does not want the job done any
// more. It asks the kernel instead of the context, which ends a little after
// the parent does: a successor may have looked at the mounts already and made
// its own. A job asks this while it has the lock on its mount point.
func wanted() error {
	p := []unix.PollFd{{Fd: int32(os.Stdin.Fd()), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("looking for the parent process: %w", err)
		case n > 0: // nothing is sent after the job, so this is the end
			return errAbandoned
		default:
			return nil
		}
	}
}

// pause sleeps for pollInterval or until ctx ends.
func pause(ctx context.Context) error { return pauseFor(ctx, pollInterval) }

// pauseFor sleeps for d or until ctx ends.
func pauseFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
