package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// ours is the command line of this project's ctr.
func (c *Containerd) ours(args ...string) []string {
	return append([]string{c.sandbox.Path("bin/ctr"), "--address", c.Address, "--namespace", c.sandbox.Namespace}, args...)
}

// Ours runs this project's ctr and returns its standard output.
func (c *Containerd) Ours(ctx context.Context, args ...string) (string, error) {
	return c.sandbox.Run(ctx, c.ours(args...)...)
}

// StartOurs starts this project's ctr as a process with a log of that name.
func (c *Containerd) StartOurs(name string, args ...string) (*Process, error) {
	return c.sandbox.start(name, nil, c.ours(args...)...)
}

// RecordTrace records the start of a container of old and makes the image of that
// name, with the command in args or the image's. It returns what was printed.
func (c *Containerd) RecordTrace(ctx context.Context, flags []string, old, name string, args ...string) (string, error) {
	return c.Ours(ctx, c.recording(flags, old, name, args)...)
}

// StartRecordTrace is RecordTrace for those who end it. Each new name has a log of
// its own.
func (c *Containerd) StartRecordTrace(flags []string, old, name string, args ...string) (*Process, error) {
	tag := name[strings.LastIndexAny(name, "/:")+1:]
	return c.StartOurs("record-trace-"+tag, c.recording(flags, old, name, args)...)
}

func (c *Containerd) recording(flags []string, old, name string, args []string) []string {
	argv := append([]string{"record-trace", "--time", "20", "--working-dir", c.sandbox.Path("traces")}, flags...)
	return append(append(argv, old, name), args...)
}

// Push pushes an image with this project's ctr and returns what was printed.
func (c *Containerd) Push(ctx context.Context, args ...string) (string, error) {
	return c.Ours(ctx, append([]string{"push"}, args...)...)
}

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Log returns what the process has printed.
func (p *Process) Log() (string, error) {
	text, err := os.ReadFile(p.log)
	return string(text), err
}

// Await waits for the end of a process, which is to have the status 0.
func (p *Process) Await(ctx context.Context) error {
	select {
	case <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s: %w", p.Name, ctx.Err())
	}
	if !p.cmd.ProcessState.Success() {
		return errors.New(p.Name + ": " + p.cmd.ProcessState.String() + ": " + tail(p.log, 4096))
	}
	return nil
}
