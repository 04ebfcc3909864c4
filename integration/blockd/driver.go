package blockd

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
	"sync"
	"syscall"
	"time"
)

// Daemon is a running daemon, or one that has ended. Methods may be called
// concurrently.
type Daemon struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr bytes.Buffer // may be read after done
	ready  chan Ready
	done   chan struct{} // closed when it has been reaped

	mu      sync.Mutex // protects what follows
	err     error      // of the process
	last    int
	waiting map[int]chan answer
}

// ErrEnded is wrapped by the error for what a daemon did not answer before it
// ended.
var ErrEnded = errors.New("the daemon has ended")

// Start starts a daemon.
func Start(c Config) (*Daemon, error) {
	p, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(c.Dir, "daemon.json")
	if err := os.WriteFile(file, p, 0o600); err != nil {
		return nil, err
	}
	d := &Daemon{cmd: exec.Command("/proc/self/exe", argument, file), ready: make(chan Ready, 1), done: make(chan struct{}),
		waiting: map[int]chan answer{}}
	d.cmd.Stderr = &d.stderr
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if d.stdin, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a daemon: %w", err)
	}
	go d.listen(out)
	return d, nil
}

// listen hands on what the daemon says until its end.
func (d *Daemon) listen(out io.Reader) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var m message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			continue // cut off in the middle of a line
		}
		if m.Ready != nil {
			d.ready <- *m.Ready
		}
		if m.Answer != nil {
			d.mu.Lock()
			if to := d.waiting[m.Answer.ID]; to != nil {
				to <- *m.Answer
				delete(d.waiting, m.Answer.ID)
			}
			d.mu.Unlock()
		}
	}
	err := d.cmd.Wait()
	d.mu.Lock()
	d.err = err
	d.mu.Unlock()
	close(d.done)
}

// PID returns the process's ID.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Ready waits until all devices are there. It is called once.
func (d *Daemon) Ready(ctx context.Context) (Ready, error) {
	select {
	case r := <-d.ready:
		return r, nil
	case <-d.done:
		return Ready{}, d.ended()
	case <-ctx.Done():
		return Ready{}, fmt.Errorf("waiting for a daemon: %w", context.Cause(ctx))
	}
}

func (d *Daemon) ended() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Errorf("%w: %w: %s", ErrEnded, errors.Join(d.err, errors.New("it had this to say")), d.stderr.String())
}

// Commit writes a picture of a device to a layer file. It returns the files of
// all layers of the picture, bottom first.
func (d *Daemon) Commit(ctx context.Context, device, file string) ([]string, error) {
	a, err := d.ask(ctx, command{Do: commit, Device: device, File: file})
	return append(a.Below, file), err
}

// Restack seals the writable layer of a device under a new one.
func (d *Daemon) Restack(ctx context.Context, device string) error {
	_, err := d.ask(ctx, command{Do: restack, Device: device})
	return err
}

// Detach unmounts and closes a device.
func (d *Daemon) Detach(ctx context.Context, device string) error {
	_, err := d.ask(ctx, command{Do: detach, Device: device})
	return err
}

// Seal is Detach, after which the writable layer is sealed.
func (d *Daemon) Seal(ctx context.Context, device string) error {
	_, err := d.ask(ctx, command{Do: seal, Device: device})
	return err
}

// ask waits for the answer to a command, or the daemon's end.
func (d *Daemon) ask(ctx context.Context, c command) (answer, error) {
	to, err := d.send(c)
	if err != nil {
		<-d.done // it has closed its end
		return answer{}, d.ended()
	}
	select {
	case a := <-to:
		if a.Error != "" {
			return a, fmt.Errorf("%s of %s: %s", c.Do, c.Device, a.Error)
		}
		return a, nil
	case <-d.done:
		return answer{}, d.ended()
	case <-ctx.Done():
		return answer{}, fmt.Errorf("%s of %s: %w", c.Do, c.Device, context.Cause(ctx))
	}
}

// send gives the daemon a command and returns where its answer will be.
func (d *Daemon) send(c command) (<-chan answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last++
	c.ID = d.last
	to := make(chan answer, 1)
	d.waiting[c.ID] = to
	p, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	_, err = d.stdin.Write(append(p, '\n'))
	return to, err
}

// Kill kills the daemon and waits for its end. It returns an error if it ended
// by itself before, or complained of anything.
func (d *Daemon) Kill() error {
	d.cmd.Process.Kill() //nolint:errcheck // then it has ended, which shows below
	<-d.done
	var exit *exec.ExitError
	d.mu.Lock()
	defer d.mu.Unlock()
	if !errors.As(d.err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		return fmt.Errorf("the daemon ended before it was killed: %w: %s", d.err, d.stderr.String())
	}
	if d.stderr.Len() > 0 {
		return fmt.Errorf("the daemon complained: %s", d.stderr.String())
	}
	return nil
}

// Stop detaches all devices, and ends the daemon and its holder.
func (d *Daemon) Stop(ctx context.Context) error {
	if _, err := d.send(command{Do: stop}); err != nil {
		return fmt.Errorf("stopping the daemon: %w", err)
	}
	select {
	case <-d.done:
	case <-ctx.Done():
		return fmt.Errorf("stopping the daemon: %w", context.Cause(ctx))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil || d.stderr.Len() > 0 {
		return fmt.Errorf("the daemon ended: %w: %s", d.err, d.stderr.String())
	}
	return nil
}

// Goroutines ends the daemon and returns the stacks of its goroutines, or what
// it has said so far if it does not end in time.
func (d *Daemon) Goroutines(patience time.Duration) string {
	d.cmd.Process.Signal(syscall.SIGQUIT) //nolint:errcheck // it may have ended
	select {
	case <-d.done:
		return d.stderr.String()
	case <-time.After(patience):
		return "it does not end"
	}
}
