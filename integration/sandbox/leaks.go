package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Mount is a line of mountinfo.
type Mount struct {
	Point, Type, Source string
}

func parseMount(line string) Mount {
	f := strings.Fields(line)
	sep := slices.Index(f, "-")
	if len(f) < 10 || sep < 0 || sep+2 >= len(f) {
		return Mount{}
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	return Mount{Point: unescape.Replace(f[4]), Type: f[sep+1], Source: unescape.Replace(f[sep+2])}
}

// MountsBelow returns the mounts at or below dir, in the order they were made.
func MountsBelow(dir string) ([]Mount, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var out []Mount
	for line := range strings.Lines(string(b)) {
		if m := parseMount(line); m.Point == dir || strings.HasPrefix(m.Point, dir+"/") {
			out = append(out, m)
		}
	}
	return out, nil
}

// Loop is a loop device in use.
type Loop struct {
	// Device is its name in /dev, Backing the file behind it.
	Device, Backing string
}

// LoopsBelow returns the loop devices whose backing file is below dir.
func LoopsBelow(dir string) ([]Loop, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var out []Loop
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // detached meanwhile
		}
		if backing := strings.TrimSpace(string(b)); strings.HasPrefix(backing, dir+"/") {
			out = append(out, Loop{filepath.Base(filepath.Dir(filepath.Dir(f))), backing})
		}
	}
	return out, err
}

// leakGrace is how long detaching may go on in the background: a mount that
// another program's namespace pins goes when that program ends.
const leakGrace = 10 * time.Second

// Leaks describes the image and container mounts, loop devices and hanging
// processes of the sandbox. Mounts that stand for as long as the snapshotter
// does (its own folder, its FUSE file system) are none.
func (s *Sandbox) Leaks() []string {
	deadline := time.Now().Add(leakGrace)
	for {
		found := s.leaks()
		if len(found) == 0 || time.Now().After(deadline) {
			return found
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *Sandbox) leaks() []string {
	var out []string
	mounts, err := MountsBelow(s.Root)
	if err != nil {
		out = append(out, err.Error())
	}
	own := s.Path("snapshotter")
	for _, m := range mounts {
		standing := strings.HasPrefix(m.Type, "fuse") || m.Point == own
		if !standing {
			out = append(out, fmt.Sprintf("%s is still mounted (%s from %s)", m.Point, m.Type, m.Source))
		}
	}
	loops, err := LoopsBelow(s.Root)
	if err != nil {
		out = append(out, err.Error())
	}
	for _, l := range loops {
		out = append(out, fmt.Sprintf("/dev/%s is still attached to %s", l.Device, l.Backing))
	}
	return append(out, s.Stuck()...)
}

// Stuck describes the processes of the sandbox in uninterruptible sleep.
func (s *Sandbox) Stuck() []string {
	pids, err := s.group.pids()
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, pid := range pids {
		if state(pid) == "D" {
			out = append(out, describe([]string{pid}))
		}
	}
	return out
}

// unmount removes all mounts and loop devices below the sandbox's folder,
// last made first.
func (s *Sandbox) unmount() error {
	var errs []error
	mounts, err := MountsBelow(s.Root)
	errs = append(errs, err)
	for _, m := range slices.Backward(mounts) {
		if unix.Unmount(m.Point, 0) != nil {
			err := unix.Unmount(m.Point, unix.MNT_DETACH)
			if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("unmounting %s: %w", m.Point, err))
			}
		}
	}
	loops, err := LoopsBelow(s.Root)
	errs = append(errs, err)
	for _, l := range loops {
		errs = append(errs, detachLoop("/dev/"+l.Device))
	}
	return errors.Join(errs...)
}

func detachLoop(dev string) error {
	f, err := os.Open(dev)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detaching %s: %w", dev, err)
	}
	return nil
}
