package mounter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// program runs a program of the system, without a shell and without the daemon's
// environment, and returns what it printed and its exit code. When ctx ends, or
// this process, it is killed.
func program(ctx context.Context, argv []string) (output string, code int, err error) {
	// The parent's death, in Pdeathsig, is that of the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	path, err := find(argv[0])
	if err != nil {
		return "", -1, err
	}
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	output = lastLines(out.String())
	if cause := context.Cause(ctx); cause != nil {
		return output, -1, cause
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return output, 0, nil
	case errors.As(err, &exit) && exit.Exited():
		return output, exit.ExitCode(), nil
	}
	return output, -1, fmt.Errorf("running %s: %w", argv[0], err)
}

// find returns the path of a program, which PATH may not have: those for file
// systems are for root.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			if p, serr := exec.LookPath(filepath.Join(dir, name)); serr == nil {
				return p, nil
			}
		}
	}
	if err != nil {
		return "", fmt.Errorf("%w (packages e2fsprogs, xfsprogs)", err)
	}
	return path, nil
}

// succeed runs a program that must end with exit code 0.
func succeed(ctx context.Context, argv []string) error {
	output, code, err := program(ctx, argv)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s ended with code %d: %s", strings.Join(argv, " "), code, output)
	}
	return err
}
