package testbed

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Process is a program that a test runs, ends and runs again. It ends with the test's own
// process. Methods may be called concurrently; the zero value, with a name, was not
// started.
type Process struct {
	Name string // for errors

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

// Start starts cmd, in the place of what was started before.
func (p *Process) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", p.Name, err)
	}
	done := make(chan struct{})
	go func() {
		cmd.Wait() //nolint:errcheck // ProcessState says how it ended
		close(done)
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.done = cmd, done
	return nil
}

// started returns what runs, or ran last.
func (p *Process) started() (*exec.Cmd, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd, p.done
}

// readyEvery is how often a process is asked whether it answers.
const readyEvery = 5 * time.Millisecond

// Await waits until ready returns nil, the process ends or ctx does; log says what it has
// printed.
func (p *Process) Await(ctx context.Context, log func() string, ready func(context.Context) error) error {
	cmd, done := p.started()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-done:
			return fmt.Errorf("starting %s: it ended (%s):\n%s", p.Name, cmd.ProcessState, log())
		case <-ctx.Done():
			return fmt.Errorf("starting %s: %w; log:\n%s", p.Name, errors.Join(ctx.Err(), err), log())
		case <-time.After(readyEvery):
		}
	}
}

// Done is closed when what was started last has ended; nil if nothing was.
func (p *Process) Done() <-chan struct{} {
	_, done := p.started()
	return done
}

// Pid is that of what was started last.
func (p *Process) Pid() int {
	cmd, _ := p.started()
	return cmd.Process.Pid
}

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error {
	cmd, _ := p.started()
	if cmd == nil {
		return fmt.Errorf("signalling %s: it was not started", p.Name)
	}
	if err := cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("signalling %s: %w", p.Name, err)
	}
	return nil
}

// End sends a signal that ends the process, also one that was stopped, and waits; after
// grace it is killed, which killed tells. The state is nil if nothing was started.
func (p *Process) End(s syscall.Signal, grace time.Duration) (state *os.ProcessState, killed bool) {
	cmd, done := p.started()
	if cmd == nil {
		return nil, false
	}
	cmd.Process.Signal(s)               //nolint:errcheck // it may have ended
	cmd.Process.Signal(syscall.SIGCONT) //nolint:errcheck // the same
	select {
	case <-done:
	case <-time.After(grace):
		cmd.Process.Kill() //nolint:errcheck // the same
		<-done
		killed = true
	}
	return cmd.ProcessState, killed
}

// Forget makes it as if nothing had been started.
func (p *Process) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.done = nil, nil
}

// Answers reports an error unless url answers 200.
func Answers(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return nil
}
