package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/lockfile"
)

// Build puts the project's commands, compiled from the sources as they are now,
// into the sandbox's folder bin.
func (s *Sandbox) Build(ctx context.Context) error {
	return s.Tools.Programs(ctx, s.Path("bin"))
}

// Programs puts the project's commands, compiled from the sources as they are
// now, into a new folder. They are linked in a folder of the cache, where go
// build leaves alone what is up to date: linking them is seconds of processor
// time, and a run of the tests starts some hundred sandboxes.
func (t Tools) Programs(ctx context.Context, dir string) (err error) {
	kept := filepath.Join(t.Cache, "programs")
	if err := errors.Join(os.MkdirAll(kept, 0o755), os.MkdirAll(dir, 0o755)); err != nil {
		return fmt.Errorf("building the commands: %w", err)
	}
	lock, err := lockfile.Take(kept + ".lock")
	if err != nil {
		return fmt.Errorf("building the commands: %w", err)
	}
	defer lock.Release() //nolint:errcheck // closing a file that nothing is written to
	cmd := exec.CommandContext(ctx, "go", "build", "-o", kept+"/", "./cmd/...")
	cmd.Dir = t.Module
	// From a folder of the same file system, programs are renamed into their place:
	// written into it, they would change in the sandboxes that have them.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOTMPDIR="+t.Cache)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the commands: %w\n%s", err, out)
	}
	programs, err := filepath.Glob(t.Module + "/cmd/*/main.go")
	if err != nil || len(programs) == 0 {
		return fmt.Errorf("building the commands: none in %s: %w", t.Module, err)
	}
	for _, p := range programs {
		name := filepath.Base(filepath.Dir(p))
		if err := linkOrCopy(filepath.Join(kept, name), filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("building the commands: %w", err)
		}
	}
	return nil
}

// linkOrCopy makes a further name for a file, or a copy on another file system.
func linkOrCopy(from, to string) error {
	err := os.Link(from, to)
	if !errors.Is(err, unix.EXDEV) {
		return err
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}
