package mounter

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Runner starts child processes.
type Runner struct {
	command  []string
	dir      string
	children sync.WaitGroup
}

// New returns a runner of children that are started by command (which must
// get to Main) and use dir for lock files and records.
func New(command []string, dir string) *Runner {
	return &Runner{command: command, dir: dir}
}

// Mount mounts the file system fsType in file read-only on target, with all
// kernel readahead off. Mounting the same file where it is mounted already
// succeeds; a mount of another file whose path begins with replace
// is dead, and is detached before.
func (r *Runner) Mount(ctx context.Context, file, target, fsType, replace string) (Result, error) {
	res, err := r.run(ctx, Job{Op: opMount, File: file, Target: target, FSType: fsType, Replace: replace})
	if err != nil {
		return res, fmt.Errorf("mounting %s on %s: %w", fsType, target, err)
	}
	return res, nil
}

// Unmount unmounts target, waiting up to patience for files to be closed, and
// then up to patience for the file system to end. One that does not end is
// named in the result as pinned. A target that is no mount point is no error.
func (r *Runner) Unmount(ctx context.Context, target string, patience time.Duration) (Result, error) {
	res, err := r.run(ctx, Job{Op: opUnmount, Target: target, Patience: patience})
	if err != nil {
		return res, fmt.Errorf("unmounting %s: %w", target, err)
	}
	return res, nil
}

// Detach unmounts targets lazily. It is for mounts whose server is gone.
func (r *Runner) Detach(ctx context.Context, targets []string) error {
	if _, err := r.run(ctx, Job{Op: opDetach, Targets: targets}); err != nil {
		return fmt.Errorf("detaching dead mounts: %w", err)
	}
	return nil
}

// Readahead sets the kernel readahead of the mount on target.
func (r *Runner) Readahead(ctx context.Context, target string, kib int) error {
	if _, err := r.run(ctx, Job{Op: opReadahead, Target: target, ReadaheadKiB: kib}); err != nil {
		return fmt.Errorf("setting the readahead of %s: %w", target, err)
	}
	return nil
}

// Wait waits for all children, also those whose jobs were given up. A child
// may be inside a system call that waits for a device, so this is for after
// the devices are gone.
func (r *Runner) Wait() { r.children.Wait() }

// run runs job in a child and waits for its result or the end of ctx.
func (r *Runner) run(ctx context.Context, job Job) (Result, error) {
	job.Dir = r.dir
	line, err := json.Marshal(job)
	if err != nil {
		return Result{}, err
	}
	cmd := exec.Command(r.command[0], r.command[1:]...)
	cmd.Dir = "/"
	// A session of its own: what is sent to the daemon's process group is
	// not meant for a child in the middle of a mount.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return Result{}, err
	}
	if err := cmd.Start(); err != nil {
		return Result{}, fmt.Errorf("starting the child process: %w", err)
	}
	// The line is shorter than a pipe's buffer, so this does not block.
	_, werr := stdin.Write(append(line, '\n'))

	ended := make(chan error, 1)
	r.children.Go(func() { ended <- cmd.Wait() })
	select {
	case err = <-ended:
	case <-ctx.Done():
		stdin.Close() // tells the child to give up
		return Result{}, fmt.Errorf("%w: %w", ErrUnfinished, context.Cause(ctx))
	}
	stdin.Close()
	return parseResult(stdout.Bytes(), stderr.String(), errors.Join(werr, err))
}

// parseResult turns what a child left into a result or an error.
func parseResult(stdout []byte, stderr string, died error) (Result, error) {
	var res Result
	if err := json.Unmarshal(stdout, &res); err != nil {
		return res, fmt.Errorf("child process ended without a result: %w, %s", errors.Join(died, err), lastLines(stderr))
	}
	switch {
	case res.Busy:
		return res, fmt.Errorf("%w: %s", ErrBusy, res.Error)
	case res.Error != "":
		return res, errors.New(res.Error)
	}
	return res, nil
}

// lastLines returns the end of s, for an error message.
func lastLines(s string) string {
	const limit = 1000
	if len(s) > limit {
		s = s[len(s)-limit:]
	}
	return strings.TrimSpace(s)
}
