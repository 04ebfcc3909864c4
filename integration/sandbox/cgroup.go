package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cgroup is a folder of a version 2 hierarchy, with all its children.
type cgroup string

// unified returns where the version 2 hierarchy is mounted.
func unified() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if m := parseMount(sc.Text()); m.Type == "cgroup2" {
			return m.Point, nil
		}
	}
	return "", errors.New("no cgroup2 file system is mounted")
}

func newCgroup(name string) (cgroup, error) {
	root, err := unified()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, name)
	return cgroup(dir), os.Mkdir(dir, 0o755)
}

// containerGroups is where runc puts the containers of a namespace on a
// machine with only version 2; elsewhere they stay in the sandbox's group.
func containerGroups(namespace string) cgroup {
	root, err := unified()
	if err != nil {
		return ""
	}
	return cgroup(filepath.Join(root, namespace))
}

// start starts cmd inside the group, so that none of its children can be
// outside.
func (c cgroup) start(cmd *exec.Cmd) error {
	dir, err := os.Open(string(c))
	if err != nil {
		return err
	}
	defer dir.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Setpgid: true}
	return cmd.Start()
}

// pids returns the processes of the group and its children.
func (c cgroup) pids() ([]string, error) {
	var all []string
	err := filepath.WalkDir(string(c), func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.Name() != "cgroup.procs" {
			return err
		}
		b, err := os.ReadFile(p)
		all = append(all, strings.Fields(string(b))...)
		if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENODEV) {
			return nil
		}
		return err
	})
	return all, err
}

// kill ends all processes of the group and waits until they are gone. It does
// not use cgroup.kill, after which kernels kill at once whatever is started in
// the group by a process outside of it.
func (c cgroup) kill(ctx context.Context) error {
	for {
		pids, err := c.pids()
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if n, err := strconv.Atoi(pid); err == nil {
				syscall.Kill(n, syscall.SIGKILL) //nolint:errcheck // it may have ended
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("killing %s: %s: %w", c, describe(pids), ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// remove deletes the group and its children once they are empty.
func (c cgroup) remove(ctx context.Context) error {
	var dirs []string
	filepath.WalkDir(string(c), func(p string, d fs.DirEntry, err error) error { //nolint:errcheck // what is gone is gone
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0; i-- {
		for {
			err := syscall.Rmdir(dirs[i])
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("removing control group %s: %w", dirs[i], err)
			}
			time.Sleep(10 * time.Millisecond) // exiting processes leave it a little later
		}
	}
	return nil
}

// shimSocket is how a shim's bootstrap file names its socket.
var shimSocket = regexp.MustCompile(`unix://(/run/containerd/s/[0-9a-f]+)`)

// removeShimSockets deletes the sockets of shims that had no time to do it.
func (s *Sandbox) removeShimSockets() {
	files, _ := filepath.Glob(s.Path("containerd/state/io.containerd.runtime.v2.task/*/*/bootstrap.json"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if m := shimSocket.FindSubmatch(b); m != nil {
			os.Remove(string(m[1]))
		}
	}
}

// removeContainerState deletes what runc keeps for a namespace in folders that
// cannot be configured.
func removeContainerState(ctx context.Context, namespace string) error {
	var errs []error
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + namespace)
	for _, g := range append(groups, "/sys/fs/cgroup/"+namespace) {
		errs = append(errs, cgroup(g).remove(ctx))
	}
	return errors.Join(append(errs, os.RemoveAll("/run/containerd/runc/"+namespace))...)
}

// state returns the one-letter state of a process, "?" if it is gone.
func state(pid any) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%v/stat", pid))
	_, rest, ok := strings.Cut(string(b), ") ")
	if err != nil || !ok {
		return "?"
	}
	return rest[:1]
}

// describe lists processes with name and state.
func describe(pids []string) string {
	var out []string
	for _, pid := range pids {
		comm, _ := os.ReadFile("/proc/" + pid + "/comm")
		out = append(out, fmt.Sprintf("%s %s in state %s", pid, strings.TrimSpace(string(comm)), state(pid)))
	}
	return strings.Join(out, ", ")
}
