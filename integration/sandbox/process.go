package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// stopGrace is how long a process has to end after SIGTERM.
const stopGrace = 20 * time.Second

// Process is a running program of a sandbox. Methods may be called
// concurrently.
type Process struct {
	// Name is how errors call the process.
	Name string

	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has been reaped
}

// start runs argv with its output appended to <root>/log/<name>.log.
func (s *Sandbox) start(name string, env []string, argv ...string) (*Process, error) {
	if err := os.MkdirAll(s.Path("log"), 0o755); err != nil {
		return nil, err
	}
	p := &Process{Name: name, log: s.Path("log", name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = append(s.environ(), env...)
	if err := s.group.start(p.cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		p.cmd.Wait() //nolint:errcheck // ProcessState says how it ended
		close(p.done)
	}()
	s.mu.Lock()
	s.procs = append(s.procs, p)
	s.mu.Unlock()
	return p, nil
}

// environ is the environment of the sandbox's processes.
func (s *Sandbox) environ() []string {
	return append(os.Environ(),
		"PATH="+strings.Join([]string{s.Tools.Bin, s.Tools.Debian + "/usr/sbin", os.Getenv("PATH"), "/usr/sbin", "/sbin"}, ":"),
		"TMPDIR="+s.Root)
}

// Pid returns the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and been reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill sends SIGKILL and waits for the end. A process that does not end
// within the context is reported: it hangs in the kernel.
func (p *Process) Kill(ctx context.Context) error {
	p.cmd.Process.Kill() //nolint:errcheck // it may have ended
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("killing %s (pid %d, state %s): %w", p.Name, p.Pid(), state(p.Pid()), ctx.Err())
	}
}

// Stop sends SIGTERM, and SIGKILL if that is not heeded, and waits.
func (p *Process) Stop(ctx context.Context) {
	p.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
	select {
	case <-p.done:
	case <-time.After(stopGrace):
		p.Kill(ctx) //nolint:errcheck // Close kills by group and reports
	}
}

// await polls ready until it succeeds or the process or the context ends.
func (p *Process) await(ctx context.Context, ready func(context.Context) error) error {
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("starting %s: it ended (%s); log:\n%s", p.Name, p.cmd.ProcessState, tail(p.log, 4096))
		case <-ctx.Done():
			return fmt.Errorf("starting %s: %w; log:\n%s", p.Name, errors.Join(ctx.Err(), err), tail(p.log, 4096))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Run runs argv in the sandbox and returns its standard output.
func (s *Sandbox) Run(ctx context.Context, argv ...string) (string, error) {
	var out strings.Builder
	err := s.RunTo(ctx, &out, argv...)
	return out.String(), err
}

// RunTo runs argv in the sandbox with its standard output going to w. What it
// wrote to standard error becomes part of the error.
func (s *Sandbox) RunTo(ctx context.Context, w io.Writer, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var complaint strings.Builder
	cmd.Stdout, cmd.Stderr, cmd.Env = w, &complaint, s.environ()
	cmd.WaitDelay = 5 * time.Second
	err := s.group.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("running %s: %w: %s", strings.Join(argv, " "), err, relevant(complaint.String()))
	}
	return nil
}

// relevant drops the notices that containerd's tools print in every case.
func relevant(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "DEPRECATION") && !strings.Contains(line, "level=info") {
			b.WriteString(line)
		}
	}
	return strings.TrimSpace(b.String())
}

// tail returns the last n bytes of a file, or the error in words.
func tail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error() + "\n"
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > n {
		f.Seek(-n, io.SeekEnd) //nolint:errcheck // then it is the whole file
	}
	b, _ := io.ReadAll(f)
	return string(b)
}
