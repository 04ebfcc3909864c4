// Package memgroup makes control groups that limit memory, with version 1 or 2
// of control groups, whichever the machine has the memory controller in.
package memgroup

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Group is a control group. It must be removed.
type Group struct {
	// Dir is its folder.
	Dir string
	// Version is that of control groups, 1 or 2.
	Version int
}

// New makes a group whose processes, and the page cache they fill, have so many
// bytes of memory and no swap. It needs root.
func New(name string, bytes int64) (*Group, error) {
	g, err := find(name)
	if err != nil {
		return nil, fmt.Errorf("making a control group: %w", err)
	}
	if err := os.Mkdir(g.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("making a control group: %w", err)
	}
	limit, swap := "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	swapLimit := bytes // with the memory
	if g.Version == 2 {
		limit, swap, swapLimit = "memory.max", "memory.swap.max", 0
	}
	if err := g.set(limit, bytes); err != nil {
		return nil, errors.Join(err, g.Remove())
	}
	// A kernel without accounting of swap has no such file.
	if err := g.set(swap, swapLimit); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
		return nil, errors.Join(err, g.Remove())
	}
	return g, nil
}

// find returns where the memory controller is.
func find(name string) (*Group, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		before, after, _ := strings.Cut(sc.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(kind) < 3 {
			continue
		}
		root := fields[4]
		if kind[0] == "cgroup" && slices.Contains(strings.Split(kind[2], ","), "memory") {
			return &Group{filepath.Join(root, name), 1}, nil
		}
		available, _ := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
		if kind[0] == "cgroup2" && slices.Contains(strings.Fields(string(available)), "memory") {
			// Children have it only if it is passed on.
			err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+memory"), 0)
			return &Group{filepath.Join(root, name), 2}, err
		}
	}
	return nil, errors.New("no control group hierarchy has the memory controller")
}

func (g *Group) set(file string, v int64) error {
	return os.WriteFile(filepath.Join(g.Dir, file), strconv.AppendInt(nil, v, 10), 0)
}

// Enter moves this process into the group in a folder; what it starts is in it,
// too. It is for a process that has just begun: what memory it has already is
// not counted.
func Enter(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
		return fmt.Errorf("entering a control group: %w", err)
	}
	return nil
}

// Add moves a process into the group.
func (g *Group) Add(pid int) error {
	if err := g.set("cgroup.procs", int64(pid)); err != nil {
		return fmt.Errorf("moving process %d into %s: %w", pid, g.Dir, err)
	}
	return nil
}

// Processes returns who is in it.
func (g *Group) Processes() ([]int, error) {
	b, err := os.ReadFile(filepath.Join(g.Dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, f := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Usage is what a group uses, and what it went through.
type Usage struct {
	Bytes, Peak, Dirty, Writeback int64
	// Killed is how many processes were killed for want of memory.
	Killed int64
}

// Usage reads the group's counters; one that a kernel does not have is 0.
func (g *Group) Usage() Usage {
	stat := g.table("memory.stat")
	if g.Version == 2 {
		events := g.table("memory.events")
		return Usage{g.number("memory.current"), g.number("memory.peak"), stat["file_dirty"], stat["file_writeback"],
			events["oom_kill"]}
	}
	return Usage{g.number("memory.usage_in_bytes"), g.number("memory.max_usage_in_bytes"), stat["dirty"], stat["writeback"],
		g.table("memory.oom_control")["oom_kill"]}
}

func (g *Group) number(file string) int64 {
	b, _ := os.ReadFile(filepath.Join(g.Dir, file))
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n
}

func (g *Group) table(file string) map[string]int64 {
	b, _ := os.ReadFile(filepath.Join(g.Dir, file))
	t := make(map[string]int64)
	for line := range strings.Lines(string(b)) {
		if name, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			t[name], _ = strconv.ParseInt(v, 10, 64)
		}
	}
	return t
}

// Remove removes the group, whose processes have ended.
func (g *Group) Remove() error {
	for range 500 {
		err := syscall.Rmdir(g.Dir)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		time.Sleep(10 * time.Millisecond) // exiting processes leave it a little later
	}
	pids, _ := g.Processes()
	return fmt.Errorf("removing control group %s: it has processes %v", g.Dir, pids)
}
