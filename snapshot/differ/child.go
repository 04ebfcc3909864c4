package differ

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"golang.org/x/sync/errgroup"
)

// childArgument makes a program the process that compares.
const childArgument = "differ-compare"

// comparison is the job of a child process. The directories are mounted through
// the daemon, which therefore must not look into them: see package fusedev.
type comparison struct {
	// Lower and Upper are the mounts to compare.
	Lower, Upper []mount.Mount
	// Target is the directory to which the difference is applied. If it is "",
	// the difference is written to standard output, as a tar archive.
	Target string
}

// Child is called first in main with os.Args. If the program was started to
// compare, it does that and returns true and the exit code; otherwise it returns
// false at once.
func Child(args []string) (code int, ok bool) {
	if len(args) < 2 || args[len(args)-1] != childArgument {
		return 0, false
	}
	if err := child(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

func child() error {
	// The end of the parent is noticed at its end of the pipes.
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGTERM)
	in := json.NewDecoder(os.Stdin)
	var c comparison
	if err := in.Decode(&c); err != nil {
		return fmt.Errorf("reading what to compare: %w", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel(errors.New("given up by the parent process"))
	}()
	return c.run(ctx, os.Stdout)
}

// run makes the difference and writes it where c says.
func (c comparison) run(ctx context.Context, out io.Writer) error {
	return mount.WithTempMount(ctx, c.Lower, func(lower string) error {
		return mount.WithReadonlyTempMount(ctx, c.Upper, func(upper string) error {
			if c.Target == "" {
				return archive.WriteDiff(ctx, out, lower, upper)
			}
			r, w := io.Pipe()
			g, ctx := errgroup.WithContext(ctx)
			g.Go(func() error {
				err := archive.WriteDiff(ctx, w, lower, upper)
				w.CloseWithError(err)
				return err
			})
			g.Go(func() error {
				_, err := archive.Apply(ctx, c.Target, r)
				r.CloseWithError(err)
				return err
			})
			return g.Wait()
		})
	})
}

// start runs c in a child process, with its standard output at out, until ctx ends.
func (c comparison) start(ctx context.Context, command []string, out io.Writer) error {
	job, err := json.Marshal(c)
	if err != nil {
		return err
	}
	stdin, feed, err := os.Pipe()
	if err != nil {
		return err
	}
	defer feed.Close()
	cmd := exec.Command(command[0], append(command[1:], childArgument)...)
	var complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, out, &complaint
	// A session of its own: what kills the daemon must not kill a process that
	// is inside of a mount that the daemon serves.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	stdin.Close()
	if err != nil {
		return fmt.Errorf("starting a process to compare: %w", err)
	}
	defer context.AfterFunc(ctx, func() { feed.Close() })()
	_, err = feed.Write(job)
	if err != nil {
		feed.Close()
		err = fmt.Errorf("telling a process what to compare: %w", err)
	}
	if ended := cmd.Wait(); ended != nil {
		err = errors.Join(err, fmt.Errorf("comparing: %w: %s", ended, bytes.TrimSpace(complaint.Bytes())))
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
