package plugin

import (
	"bufio"
	"context"
	_ "embed" // the driver
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

//go:embed driver.py
var driver string

// ErrNoPython says that there is no python3 to run a plugin.
var ErrNoPython = errors.New("there is no python3 on PATH: install it, or write the plugin in Starlark (.star)")

// ended is how long a python3 that is told to end may take.
const ended = 5 * time.Second

func runPython(ctx context.Context, path string, r trace.Reader, args map[string]any, out, errs io.Writer) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("running the plugin: %w", err)
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		return fmt.Errorf("running %s: %w", path, ErrNoPython)
	}
	given, err := json.Marshal(args)
	if err != nil {
		return fmt.Errorf("running %s: its args: %w", path, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, python, "-u", "-c", driver, path)
	// In a group of its own it is ended with all that it started, and an interrupt
	// from the keyboard reaches it only by us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = ended
	var one sync.Mutex
	said := tail{w: &turns{&one, errs, cancel}}
	cmd.Stdout, cmd.Stderr = &turns{&one, out, cancel}, &said
	if f, ok := out.(*os.File); ok {
		cmd.Stdout = f
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("running %s: %w", path, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("running %s: %w", path, err)
	}
	if err := feed(ctx, in, given, r); err != nil {
		// Half of a trace is not to be simulated as if it were the whole: the end of
		// the list is only told after the process is gone.
		cancel(err)
	} else {
		_ = in.Close() // that nobody reads it is for the exit to explain
	}
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it started and did not end by itself
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("the plugin %s failed (%w)%s", path, err, said.reason())
	}
	return nil
}

// feed writes the args and then the requests, each as a line of JSON; the driver knows
// the order of a request's fields. The error is r's.
func feed(ctx context.Context, in io.Writer, args []byte, r trace.Reader) error {
	w := bufio.NewWriterSize(in, 64<<10)
	_, _ = w.Write(append(args, '\n')) // an error comes again with the next write
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for ctx.Err() == nil {
		x, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		q := requestOf(x)
		if e.Encode([]any{q.Delay, q.URI, q.Size, q.Method, q.Duration, q.Client}) != nil {
			return nil // the process has ended
		}
	}
	_ = w.Flush()
	return nil
}

// turns writes to what others write to at the same time. When that fails it ends the
// process, which would wait for ever for someone to read what it prints.
type turns struct {
	mu  *sync.Mutex
	w   io.Writer
	end context.CancelCauseFunc
}

// Write implements io.Writer.
func (t *turns) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, err := t.w.Write(p)
	if err != nil {
		t.end(fmt.Errorf("printing what the plugin says: %w", err))
	}
	return n, err
}

// tail passes on what is written and keeps the end of it.
type tail struct {
	w    io.Writer
	last []byte
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.last = append(t.last, p...)
	if len(t.last) > 8<<10 {
		t.last = append(t.last[:0], t.last[len(t.last)-4<<10:]...)
	}
	return t.w.Write(p)
}

// reason returns the last line, and a hint where it is that of Python 2.
func (t *tail) reason() string {
	text := strings.TrimSpace(string(t.last))
	reason := text[strings.LastIndexByte(text, '\n')+1:]
	if reason == "" {
		return ""
	}
	for _, sign := range python2 {
		if strings.Contains(reason, sign) {
			reason += " (this looks like Python 2, which python3 does not read)"
			break
		}
	}
	return ": " + reason
}

// python2 are complaints that python3 has of what was written for Python 2.
var python2 = []string{
	"Missing parentheses in call to", "multiple exception types must be parenthesized",
	"inconsistent use of tabs", "name 'xrange'", "name 'unicode'", "name 'long'", "name 'raw_input'",
	"attribute 'has_key'", "attribute 'iteritems'", "attribute 'itervalues'", "attribute 'iterkeys'",
	"No module named 'Queue'", "No module named 'urllib2'", "No module named 'ConfigParser'", "No module named 'StringIO'",
	"No module named 'cPickle'", "leading zeros in decimal integer literals",
}
