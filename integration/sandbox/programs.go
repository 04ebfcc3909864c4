package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/lockfile"
)

// Build puts the project's commands, compiled from the sources as they were when
// the process first asked for them, into the sandbox's folder bin.
func (s *Sandbox) Build(ctx context.Context) error {
	programs.Lock()
	defer programs.Unlock()
	if programs.files == nil {
		files, err := s.Tools.programs(ctx)
		if err != nil {
			return fmt.Errorf("building the commands: %w", err)
		}
		programs.files = files
	}
	if err := os.MkdirAll(s.Path("bin"), 0o755); err != nil {
		return err
	}
	for name, f := range programs.files {
		if err := link(ctx, f, s.Path("bin", name)); err != nil {
			return fmt.Errorf("placing the command %s: %w", name, err)
		}
	}
	return nil
}

// programs are the commands that this process uses, open for as long as it runs:
// linking them is seconds of processor time, and a run of the tests starts some
// hundred sandboxes.
var programs struct {
	sync.Mutex
	files map[string]*os.File
}

// programs builds the project's commands and opens them. They are linked in a
// folder of the cache, where go build leaves alone what is up to date.
func (t Tools) programs(ctx context.Context) (files map[string]*os.File, err error) {
	sources, err := filepath.Glob(t.Module + "/cmd/*/main.go")
	if err != nil || len(sources) == 0 {
		return nil, fmt.Errorf("there are none in %s: %w", t.Module, err)
	}
	kept := filepath.Join(t.Cache, "programs")
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return nil, err
	}
	lock, err := lockfile.Take(kept + ".lock")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", kept+"/", "./cmd/...")
	cmd.Dir = t.Module
	// From a folder of the same file system, programs are renamed into their place:
	// written into it, they would change in the sandboxes that have them.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOTMPDIR="+t.Cache)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	files = map[string]*os.File{}
	for _, s := range sources {
		name := filepath.Base(filepath.Dir(s))
		if files[name], err = os.Open(filepath.Join(kept, name)); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// link gives an open file a further name, or makes a copy where that can't be: on
// another file system, or when the last name is gone because another process has
// built other programs.
func link(ctx context.Context, f *os.File, path string) error {
	from := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
	if unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW) == nil {
		return nil
	}
	// By another process: a child that this one forks meanwhile would hold the
	// file open for writing, and nobody could run it.
	if out, err := exec.CommandContext(ctx, "cp", from, path).CombinedOutput(); err != nil {
		return fmt.Errorf("copying: %w: %s", err, out)
	}
	return nil
}
