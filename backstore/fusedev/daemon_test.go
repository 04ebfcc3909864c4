package fusedev_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/device/devicetest"
	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/remote/blob"
)

// daemonConfig is the file that tells a test daemon what to do.
type daemonConfig struct {
	Server  fusedev.Config
	Devices []daemonDevice
	Churn   []daemonDevice // attached and detached in a loop
}

type daemonDevice struct {
	ID, Image, Target string
	Delay             time.Duration
	// Writable says that Image is written, too, and mounted so.
	Writable bool
}

func (d daemonDevice) open() (device.Device, error) {
	if d.Writable {
		return devicetest.OpenFile(d.Image, d.Delay)
	}
	f, err := blob.OpenFile(d.Image)
	if err != nil {
		return nil, err
	}
	if d.Delay == 0 {
		return f, nil
	}
	return devicetest.Delay(f, d.Delay), nil
}

// daemonMain serves until it is killed. It prints a line when everything is
// mounted.
func daemonMain(file string) error {
	p, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var cfg daemonConfig
	if err := json.Unmarshal(p, &cfg); err != nil {
		return err
	}
	ctx := context.Background()
	cfg.Server.Observer = printer{}
	s, err := fusedev.Open(ctx, cfg.Server)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- s.Run(ctx) }()
	go func() {
		err := attach(ctx, s, cfg)
		if err != nil {
			served <- err
		}
	}()
	return <-served
}

// printer reports on stderr, which a test looks at.
type printer struct{}

func (printer) ReadFailed(id string, off int64, n int, err error) {
	fmt.Fprintf(os.Stderr, "read of %s, %d bytes at %d: %v\n", id, n, off, err)
}

func (printer) WriteFailed(id string, off, n int64, err error) {
	fmt.Fprintf(os.Stderr, "write of %s, %d bytes at %d: %v\n", id, n, off, err)
}

func (printer) HolderLost(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "holder lost: %v\n", err)
	}
}

// attach does what a snapshotter does after a start: all devices come back,
// what is half done is undone.
func attach(ctx context.Context, s *fusedev.Server, cfg daemonConfig) error {
	keep := make(map[string]bool)
	for _, d := range cfg.Devices {
		keep[d.ID] = true
		dev, err := d.open()
		if err != nil {
			return err
		}
		if err := s.Add(ctx, d.ID, dev); err != nil {
			return err
		}
	}
	// Half of what an earlier daemon was busy with comes back for long
	// enough to finish, the other half is gone.
	for i, d := range cfg.Churn {
		if i%2 == 0 && slices.Contains(s.Known(), d.ID) {
			dev, err := d.open()
			if err != nil {
				return err
			}
			if err := s.Add(ctx, d.ID, dev); err != nil {
				return err
			}
		}
	}
	s.Ready()
	mounts, err := s.Mounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if !keep[m.ID] {
			if err := s.Unmount(ctx, m.Target); err != nil {
				return err
			}
		}
	}
	for _, id := range s.Known() {
		if !keep[id] {
			if err := s.Remove(ctx, id); err != nil {
				return err
			}
		}
	}
	for _, d := range cfg.Devices {
		if err := s.Mount(ctx, d.ID, fusedev.Mount{Target: d.Target, Writable: d.Writable}); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	return churn(ctx, s, cfg.Churn)
}

// churn attaches and detaches devices for ever, each in a goroutine.
func churn(ctx context.Context, s *fusedev.Server, devices []daemonDevice) error {
	errs := make(chan error, len(devices))
	var wg sync.WaitGroup
	for _, d := range devices {
		wg.Go(func() {
			for {
				if err := cycle(ctx, s, d); err != nil {
					errs <- fmt.Errorf("cycle of %s: %w", d.ID, err)
					return
				}
				fmt.Println(d.ID)
			}
		})
	}
	if len(devices) == 0 {
		return nil
	}
	return <-errs
}

// cycle attaches, reads and detaches a device once.
func cycle(ctx context.Context, s *fusedev.Server, d daemonDevice) error {
	dev, err := d.open()
	if err != nil {
		return err
	}
	if err := s.Add(ctx, d.ID, dev); err != nil {
		return err
	}
	if err := s.Mount(ctx, d.ID, fusedev.Mount{Target: d.Target}); err != nil {
		return err
	}
	out, err := exec.Command("/proc/self/exe", "test-read", "sum", d.Target).CombinedOutput()
	if err != nil {
		return fmt.Errorf("reading: %w: %s", err, out)
	}
	if err := s.Unmount(ctx, d.Target); err != nil {
		return err
	}
	return s.Remove(ctx, d.ID)
}

// daemon is a running test daemon.
type daemon struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	ready  chan struct{} // closed after the first line, or at the end
	failed bool          // there was no line
	cycles atomic.Int64  // further lines
	done   chan error
}

// startDaemon starts a daemon on the configuration in file.
func startDaemon(t testing.TB, file string) *daemon {
	t.Helper()
	return startProgram(t, "test-daemon", file)
}

// startProgram starts a kind of daemon on the configuration in file.
func startProgram(t testing.TB, kind, file string) *daemon {
	t.Helper()
	return startCommand(t, "/proc/self/exe", kind, file)
}

// startCommand starts a program that prints lines.
func startCommand(t testing.TB, name string, args ...string) *daemon {
	t.Helper()
	d := &daemon{ready: make(chan struct{}), done: make(chan error, 1)}
	d.cmd = exec.Command(name, args...)
	d.cmd.Stderr = &d.stderr
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s := bufio.NewScanner(stdout)
		d.failed = !s.Scan()
		close(d.ready)
		for s.Scan() {
			d.cycles.Add(1)
		}
		d.done <- d.cmd.Wait()
	}()
	return d
}

// waitReady waits until everything is mounted.
func (d *daemon) waitReady(t testing.TB) {
	t.Helper()
	<-d.ready
	if d.failed {
		t.Fatalf("daemon ended: %v: %s", <-d.done, d.stderr.String())
	}
}

// kill kills the daemon with SIGKILL and waits for its end. The daemon must
// have been alive and must not have complained.
func (d *daemon) kill(t testing.TB) {
	t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatalf("killing the daemon: %v: %s", err, d.stderr.String())
	}
	err := <-d.done
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("daemon ended before it was killed: %v: %s", err, d.stderr.String())
	}
	if d.stderr.Len() > 0 {
		t.Errorf("daemon complained: %s", d.stderr.String())
	}
}

// site is a set of directories for one server and what is mounted from it.
type site struct {
	cfg fusedev.Config
	dir string
}

// newSite makes a site and checks in the end that nothing is left of it.
func newSite(t testing.TB) *site {
	t.Helper()
	needRoot(t)
	dir, err := os.MkdirTemp("", "fusedev")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{dir: dir, cfg: fusedev.Config{
		StateDir:   filepath.Join(dir, "state"),
		RuntimeDir: filepath.Join(dir, "run"),
	}}
	t.Cleanup(func() {
		s.tearDown(t)
		s.checkClean(t)
		// Not across mounts that a failed test left.
		if !t.Failed() {
			if err := os.RemoveAll(dir); err != nil {
				t.Errorf("removing %s: %v", dir, err)
			}
		}
	})
	return s
}

// target makes a mount point.
func (s *site) target(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(s.dir, "mnt", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// write writes a daemon's configuration and returns the file's name.
func (s *site) write(t testing.TB, cfg daemonConfig) string {
	t.Helper()
	cfg.Server = s.cfg
	p, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(s.dir, "daemon.json")
	if err := os.WriteFile(name, p, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// open opens a server in this process, running until the test ends.
func (s *site) open(t testing.TB) *fusedev.Server {
	t.Helper()
	r := s.openUnmanaged(t)
	t.Cleanup(func() { r.stop(t) })
	return r.server
}

// tearDown shuts down what a test left running, with a server of its own.
func (s *site) tearDown(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	server, err := fusedev.Open(ctx, s.cfg)
	if err != nil {
		t.Errorf("opening for the shutdown: %v", err)
		return
	}
	defer server.Close()
	served := make(chan error, 1)
	go func() { served <- server.Run(ctx) }()
	server.Ready()
	if err := server.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
		cancel()
	}
	if err := <-served; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// checkClean checks that no mount, loop device, process or socket of the site
// is left.
func (s *site) checkClean(t testing.TB) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(mounts) {
		if bytes.Contains(line, []byte(s.dir+"/")) {
			t.Errorf("left mounted: %s", line)
		}
	}
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if p, err := os.ReadFile(f); err == nil && bytes.HasPrefix(p, []byte(s.dir+"/")) {
			t.Errorf("left attached: %s to %s", f, p)
		}
	}
	if _, err := os.Stat(filepath.Join(s.cfg.RuntimeDir, "holder.sock")); err == nil {
		t.Error("the holder's socket is left")
	}
	checkProcesses(t, s.dir)
}

// checkProcesses checks that no process of this program is left that has dir
// in its arguments, and that none stays stuck in the kernel. Other tests may
// run beside this one, so being there for a moment is no fault.
func checkProcesses(t testing.TB, dir string) {
	t.Helper()
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range procs {
		proc := filepath.Dir(exe)
		if name, err := os.Readlink(exe); err != nil || name != self || filepath.Base(proc) == fmt.Sprint(os.Getpid()) {
			continue
		}
		waitFor(t, "end of process "+proc+", which is stuck in the kernel", func() bool {
			stat, err := os.ReadFile(filepath.Join(proc, "stat"))
			return err != nil || !bytes.Contains(stat, []byte(") D "))
		})
		args, err := os.ReadFile(filepath.Join(proc, "cmdline"))
		if err == nil && bytes.Contains(args, []byte(dir+"/")) {
			t.Errorf("left running: %s", bytes.ReplaceAll(args, []byte{0}, []byte{' '}))
		}
	}
}

// alive reports whether process pid exists and is not a zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z ")) && unix.Kill(pid, 0) == nil
}
