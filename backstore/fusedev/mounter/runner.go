package mounter

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	devices  string
	children sync.WaitGroup
}

// New returns a runner of children that are started by command (which must
// get to Main), use dir for lock files and records, and work on devices whose
// FUSE files are in the directory devices.
func New(command []string, dir, devices string) *Runner {
	return &Runner{command: command, dir: dir, devices: devices}
}

// Mount says what to mount, and how.
type Mount struct {
	File, Target, FSType string

	Writable bool
	Options  string // "" for the defaults of the type, " " for none

	// Replace is what the path of a file begins with that is dead if it is
	// not File: a mount of one on Target is detached before.
	Replace string
}

// Mount mounts the file system in a file, with all kernel readahead off.
// Mounting the same file where it is mounted already succeeds.
func (r *Runner) Mount(ctx context.Context, m Mount) (Result, error) {
	res, err := r.run(ctx, Job{
		Op: opMount, File: m.File, Target: m.Target, FSType: m.FSType,
		Writable: m.Writable, Options: m.Options, Replace: m.Replace,
	})
	if err != nil {
		return res, fmt.Errorf("mounting %s on %s: %w", m.FSType, m.Target, err)
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

// Format makes a file system of type fsType on the device file.
func (r *Runner) Format(ctx context.Context, file, fsType, options string) error {
	_, err := r.run(ctx, Job{Op: opFormat, File: file, FSType: fsType, Options: options})
	if err != nil {
		return fmt.Errorf("making an %s: %w", fsType, err)
	}
	return nil
}

// Loop returns a loop device of file that stays, a new one unless there is one.
// Those of files whose path begins with replace are let go.
func (r *Runner) Loop(ctx context.Context, file, replace string, writable bool) (dev string, err error) {
	res, err := r.run(ctx, Job{Op: opLoop, File: file, Replace: replace, Writable: writable})
	if err != nil {
		return "", fmt.Errorf("attaching a loop device: %w", err)
	}
	return res.Source, nil
}

// Unloop takes loop devices away, given with their files, waiting up to patience
// for each to be closed, or leaving it to the kernel if lazy.
func (r *Runner) Unloop(ctx context.Context, loops map[string]string, patience time.Duration, lazy bool) error {
	if _, err := r.run(ctx, Job{Op: opUnloop, Loops: loops, Patience: patience, Lazy: lazy}); err != nil {
		return fmt.Errorf("detaching loop devices: %w", err)
	}
	return nil
}

// Grow makes the loop device of file, and the file system that is mounted from
// it on target unless that is empty, as large as file.
func (r *Runner) Grow(ctx context.Context, file, target string) error {
	if _, err := r.run(ctx, Job{Op: opGrow, File: file, Target: target}); err != nil {
		return fmt.Errorf("growing: %w", err)
	}
	return nil
}

// Wait waits for all children, also those whose jobs were given up. A child
// may be inside a system call that waits for a device, so this is for after
// the devices are gone.
func (r *Runner) Wait() { r.children.Wait() }

// child is a child process that has got its job.
type child struct {
	stdin  io.Closer // tells it to give up, or to finish
	stdout bytes.Buffer
	stderr bytes.Buffer
	werr   error
	ended  chan error
}

// start starts job in a child. What the child prints goes to first, too, if it
// is not nil.
func (r *Runner) start(job Job, first io.Writer) (*child, error) {
	job.Dir, job.Devices = r.dir, r.devices
	line, err := json.Marshal(job)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(r.command[0], r.command[1:]...)
	cmd.Dir = "/"
	// A session of its own: what is sent to the daemon's process group is
	// not meant for a child in the middle of a mount.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c := &child{ended: make(chan error, 1)}
	cmd.Stdout, cmd.Stderr = &c.stdout, &c.stderr
	if first != nil {
		cmd.Stdout = io.MultiWriter(&c.stdout, first)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the child process: %w", err)
	}
	c.stdin = stdin
	// The line is shorter than a pipe's buffer, so this does not block.
	_, c.werr = stdin.Write(append(line, '\n'))
	r.children.Go(func() { c.ended <- cmd.Wait() })
	return c, nil
}

// run runs job in a child and waits for its result or the end of ctx.
func (r *Runner) run(ctx context.Context, job Job) (Result, error) {
	c, err := r.start(job, nil)
	if err != nil {
		return Result{}, err
	}
	select {
	case err = <-c.ended:
	case <-ctx.Done():
		c.stdin.Close()
		return Result{}, fmt.Errorf("%w: %w", ErrUnfinished, context.Cause(ctx))
	}
	c.stdin.Close()
	return c.result(err)
}

// result returns the result of a child that ended with err.
func (c *child) result(err error) (Result, error) {
	return parseResult(c.stdout.Bytes(), c.stderr.String(), errors.Join(c.werr, err))
}

// parseResult turns what a child left into a result or an error.
func parseResult(stdout []byte, stderr string, died error) (Result, error) {
	// The last line; see Result.Frozen.
	lines := bytes.Split(bytes.TrimSpace(stdout), []byte{'\n'})
	var res Result
	if err := json.Unmarshal(lines[len(lines)-1], &res); err != nil {
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
