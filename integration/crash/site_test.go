package crash_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/blockd"
	"github.com/reprise-containers/reprise/integration/load/sectors"
)

// kills is how often a test kills the daemon: CRASH_KILLS, or 20.
func kills(t testing.TB) int {
	t.Helper()
	v := os.Getenv("CRASH_KILLS")
	if v == "" {
		return 20
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("CRASH_KILLS: %v", err)
	}
	return n
}

// site is a folder with devices, the daemon that serves them, and who counts.
type site struct {
	cfg    blockd.Config
	daemon *blockd.Daemon
	ready  *blockd.Ready // of this daemon, once known
	holder int           // the last that was heard of

	killed   int
	inFlight int            // requests of the kernel, at kills
	doing    map[string]int // of the loads, at kills
}

// newSite makes a site, and takes it down at the end of the test.
func newSite(t testing.TB, devices ...blockd.Device) *site {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("devices need root")
	}
	dir, err := os.MkdirTemp("", "crash")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{cfg: blockd.Config{Dir: dir, Devices: devices}, doing: map[string]int{}}
	t.Cleanup(func() {
		s.cleanUp(t)
		if !t.Failed() {
			check(t, os.RemoveAll(dir))
		} else {
			t.Logf("left in %s", dir)
		}
	})
	check(t, s.cfg.Prepare())
	return s
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patience is what nothing takes, however slow the machine.
const patience = 2 * time.Minute

func (s *site) start(t testing.TB) {
	t.Helper()
	d, err := blockd.Start(s.cfg)
	check(t, err)
	s.daemon, s.ready = d, nil
}

// wait waits until the devices are there.
func (s *site) wait(t testing.TB) blockd.Ready {
	t.Helper()
	if s.ready == nil {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		r, err := s.daemon.Ready(ctx)
		if err != nil {
			t.Fatal(err, s.stacks())
		}
		s.ready, s.holder = &r, r.Holder
	}
	return *s.ready
}

// kill kills the daemon and counts what it was doing.
func (s *site) kill(t testing.TB, busy func() map[string]int) {
	t.Helper()
	s.inFlight += s.requests()
	for what, n := range busy() {
		s.doing[what] += n
	}
	s.killed++
	check(t, s.daemon.Kill())
}

// requests is how many requests the loop devices have in flight.
func (s *site) requests() (n int) {
	for _, dev := range s.loops() {
		p, _ := os.ReadFile("/sys/block/" + filepath.Base(dev) + "/inflight")
		for _, f := range strings.Fields(string(p)) {
			k, _ := strconv.Atoi(f)
			n += k
		}
	}
	return n
}

// loops returns the loop devices of the site.
func (s *site) loops() (devs []string) {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if p, err := os.ReadFile(f); err == nil && bytes.HasPrefix(p, []byte(s.cfg.Dir+"/")) {
			devs = append(devs, "/dev/"+strings.Split(f, "/")[3])
		}
	}
	return devs
}

// mounts returns the mount points of the site, latest first.
func (s *site) mounts() (points []string) {
	p, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(p)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], s.cfg.Dir+"/") {
			points = append([]string{f[4]}, points...)
		}
	}
	return points
}

// reboot kills the daemon and the holder, so that all requests fail, and takes
// away all that the kernel has of them. What was in the page cache above is lost,
// what is in that of the files is not. end waits for the loads, which have been
// told to end.
func (s *site) reboot(t testing.TB, busy func() map[string]int, end func()) {
	t.Helper()
	s.wait(t) // it has a holder from then on
	s.kill(t, busy)
	check(t, unix.Kill(s.holder, unix.SIGKILL))
	end()
	s.cleanUp(t)
}

// cleanUp takes away processes, mounts and loop devices of the site.
func (s *site) cleanUp(t testing.TB) {
	if s.daemon != nil {
		s.daemon.Kill() //nolint:errcheck // it may have ended
	}
	if s.holder != 0 {
		unix.Kill(s.holder, unix.SIGKILL) //nolint:errcheck // it may have ended
		s.holder = 0
	}
	// Mounts hold loop devices, which hold the mount of the devices' files.
	eventually(t, "unmounting", func() error {
		var errs []error
		for _, m := range s.mounts() {
			errs = append(errs, unix.Unmount(m, 0))
		}
		for _, dev := range s.loops() {
			if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
				errs = append(errs, fmt.Errorf("%w: %s", err, out))
			}
		}
		if left := append(s.mounts(), s.loops()...); len(left) > 0 {
			return fmt.Errorf("%v: %w", left, errors.Join(errs...))
		}
		return nil
	})
	for _, dir := range []string{"state", "run"} {
		check(t, os.RemoveAll(filepath.Join(s.cfg.Dir, dir)))
		check(t, os.MkdirAll(filepath.Join(s.cfg.Dir, dir), 0o755))
	}
}

func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	var err error
	for range 500 {
		if err = f(); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%s: %v", what, err)
}

// stacks tells where the daemon hangs.
func (s *site) stacks() string {
	var b strings.Builder
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stack", s.daemon.PID()))
	for _, f := range tasks {
		p, _ := os.ReadFile(f)
		fmt.Fprintf(&b, "%s\n%s", f, p)
	}
	return b.String()
}

// pause sleeps for a random time between the two, in milliseconds.
func pause(least, most int) {
	time.Sleep(time.Duration(least+rand.IntN(most-least)) * time.Millisecond)
}

// open opens a disk until the test ends.
func open(t testing.TB, name string) *sectors.Opened {
	t.Helper()
	d, err := sectors.Open(name)
	check(t, err)
	return d
}

// background runs f until its context is cancelled by the function it returns,
// which waits for its end.
func background(t testing.TB, f func(context.Context) error) (cancel func(), wait func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	return stop, func() {
		t.Helper()
		stop()
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(patience):
			t.Fatal("a load hangs")
		}
	}
}
