package fusedev_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// touch starts a process that makes a file.
func touch(t testing.TB, dir, name string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("touch", filepath.Join(dir, name))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// waitBlocked waits until a process waits for a file system.
func waitBlocked(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	waitFor(t, "blocked process", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		return err == nil && bytes.Contains(stat, []byte(") D "))
	})
}

// jobs returns the process IDs of the site's children that do jobs.
func jobs(t testing.TB) (pids []int) {
	t.Helper()
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range procs {
		name, err := os.Readlink(exe)
		args, aerr := os.ReadFile(filepath.Join(filepath.Dir(exe), "cmdline"))
		if err != nil || aerr != nil || name != self || !bytes.Contains(args, []byte("fusedev-mount")) {
			continue
		}
		var pid int
		if _, err := fmt.Sscan(filepath.Base(filepath.Dir(exe)), &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestFreeze(t *testing.T) {
	for _, fsType := range writableTypes {
		t.Run(fsType, func(t *testing.T) {
			site := newSite(t)
			s := site.open(t)
			_, target := mountedDisk(t, site, s, fsType)
			var blocked *exec.Cmd
			during := func() error {
				blocked = touch(t, target, "a")
				waitBlocked(t, blocked)
				return os.ErrClosed
			}
			if err := s.Freeze(t.Context(), target, during); !errors.Is(err, os.ErrClosed) {
				t.Errorf("Freeze = %v", err)
			}
			if err := blocked.Wait(); err != nil {
				t.Errorf("writing after a freeze: %v", err)
			}

			// Its context ends.
			ctx, cancel := context.WithCancel(t.Context())
			err := s.Freeze(ctx, target, func() error {
				blocked = touch(t, target, "b")
				waitBlocked(t, blocked)
				cancel()
				return blocked.Wait()
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Freeze with a context that ended = %v", err)
			}

			// Its function panics.
			func() {
				defer func() {
					if recover() == nil {
						t.Error("the panic was lost")
					}
				}()
				_ = s.Freeze(t.Context(), target, func() error { panic("during a freeze") })
			}()
			shell(t, `touch "$1/c"`, target)

			// Its child is killed.
			err = s.Freeze(t.Context(), target, func() error {
				for _, pid := range jobs(t) {
					if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
						t.Error(err)
					}
				}
				return nil
			})
			if err == nil {
				t.Error("Freeze whose child was killed succeeded")
			}
			shell(t, `touch "$1/d"`, target)

			if err := s.Freeze(t.Context(), target, func() error { return nil }); err != nil {
				t.Errorf("Freeze = %v", err)
			}
			if got := shell(t, `cd "$1"; ls ? | tr -d '\n'`, target); got != "abcd" {
				t.Errorf("files: %q", got)
			}
			if err := s.Unmount(t.Context(), target); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFreezeOfNothing freezes directories that are not devices': the file system
// they are on belongs to the machine.
func TestFreezeOfNothing(t *testing.T) {
	site := newSite(t)
	s := site.open(t)
	target := site.target(t, "m")
	called := false
	check := func() {
		t.Helper()
		err := s.Freeze(t.Context(), target, func() error { called = true; return nil })
		if err == nil || called {
			t.Errorf("Freeze = %v, called: %v", err, called)
		}
	}
	check()
	shell(t, `mount -t tmpfs none "$1"`, target)
	check()
	shell(t, `umount "$1"`, target)
}

// TestFreezeOfKilledDaemon kills the daemon that froze, once alone and once with
// its child.
func TestFreezeOfKilledDaemon(t *testing.T) {
	for _, child := range []bool{false, true} {
		t.Run(fmt.Sprintf("child killed: %v", child), func(t *testing.T) {
			site := newSite(t)
			file, target := site.newDisk(t, "disk", 64<<20), site.target(t, "m")
			d := site.startDisk(t, diskConfig{File: file, Target: target, Freeze: true})
			blocked := touch(t, target, "x")
			waitBlocked(t, blocked)
			if child {
				// The daemon first, or it would thaw.
				if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				for _, pid := range jobs(t) {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
			d.kill(t)
			// Thawing ext4 writes to the device, so it takes a daemon.
			d = site.startDisk(t, diskConfig{File: file, Target: target})
			if err := blocked.Wait(); err != nil {
				t.Errorf("writing after the next daemon came: %v", err)
			}
			d.kill(t)
			s := site.open(t)
			addDisk(t, s, "d", file)
			if err := s.Unmount(t.Context(), target); err != nil {
				t.Error(err)
			}
			fsck(t, "ext4", file)
			if out := shell(t, `debugfs -R 'ls -p /' "$1" 2>/dev/null`, file); !strings.Contains(out, "/x/") {
				t.Errorf("the file is lost: %s", out)
			}
		})
	}
}
