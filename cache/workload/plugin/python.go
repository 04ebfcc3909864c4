package plugin

import (
	"bufio"
	"bytes"
	"context"
	_ "embed" // the driver
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
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
	given := []byte("null")
	if args != nil {
		if given, err = json.Marshal(args); err != nil {
			return fmt.Errorf("running %s: its args: %w", path, err)
		}
	}
	cmd := exec.CommandContext(ctx, python, "-u", "-c", driver, path, string(given))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = ended
	said := tail{w: errs}
	cmd.Stdout, cmd.Stderr = out, &said
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("running %s: %w", path, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("running %s: %w", path, err)
	}
	feeding := feed(in, r)
	if feeding != nil {
		// Half of a trace is not to be simulated as if it were the whole: it does not
		// see the end of it.
		_ = cmd.Process.Kill()
	}
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case feeding != nil:
		return feeding
	case err != nil:
		return fmt.Errorf("the plugin %s failed (%w)%s", path, err, said.reason())
	}
	return nil
}

// feed writes the requests as JSON lines, and closes in after the last one. The error
// is that of the trace; that nobody reads on is for the process's exit to explain.
func feed(in io.WriteCloser, r trace.Reader) error {
	w := bufio.NewWriterSize(in, 64<<10)
	e := json.NewEncoder(w)
	for {
		x, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if e.Encode(requestOf(x)) != nil {
			break
		}
	}
	_ = w.Flush()
	_ = in.Close()
	return nil
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

// reason returns the last line, and a hint to what is Python 2.
func (t *tail) reason() string {
	lines := strings.Split(strings.TrimSpace(string(t.last)), "\n")
	reason := lines[len(lines)-1]
	if reason == "" {
		return ""
	}
	if bytes.Contains(t.last, []byte("Missing parentheses in call to 'print'")) {
		reason += " (this is Python 2; python3 -m lib2to3 or a pair of parentheses makes it Python 3)"
	}
	return ": " + reason
}
