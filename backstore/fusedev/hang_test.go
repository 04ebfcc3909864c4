package fusedev_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/device/devicetest"
	"github.com/reprise-containers/reprise/backstore/fusedev"
)

// recorder counts what a server observes.
type recorder struct {
	mu     sync.Mutex
	failed map[string][]error
}

func (r *recorder) WriteFailed(id string, _, _ int64, err error) { r.ReadFailed(id, 0, 0, err) }

func (r *recorder) ReadFailed(id string, _ int64, _ int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = make(map[string][]error)
	}
	r.failed[id] = append(r.failed[id], err)
}

func (r *recorder) HolderLost(error) {}

func (r *recorder) of(id string) []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.failed[id])
}

// file returns the FUSE file of a device, for other processes to read.
func (s *site) file(id string) string { return filepath.Join(s.cfg.RuntimeDir, "devices", id) }

// stats returns the statistics of one device.
func stats(s *fusedev.Server, id string) fusedev.DeviceStats {
	for _, st := range s.Stats() {
		if st.ID == id {
			return st
		}
	}
	return fusedev.DeviceStats{}
}

func mustAdd(t testing.TB, s *fusedev.Server, id string, d device.Device) {
	t.Helper()
	if err := s.Add(t.Context(), id, d); err != nil {
		t.Fatal(err)
	}
}

// readTask runs a task of the reading process to its end.
func readTask(args ...string) (string, error) {
	cmd := exec.Command("/proc/self/exe", append([]string{"test-read"}, args...)...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// TestHungDevice has 200 reads of one device outstanding while another one is
// read, and then removes the hanging one.
func TestHungDevice(t *testing.T) {
	site := newSite(t)
	s := site.open(t)
	hung := devicetest.NewHanging(devicetest.Bytes(devicetest.Random(4 << 20)))
	mustAdd(t, s, "hung", hung)
	mustAdd(t, s, "well", devicetest.Bytes(devicetest.Random(4<<20)))

	alone, err := readTask("latency", site.file("well"))
	if err != nil {
		t.Fatalf("%v: %s", err, alone)
	}
	hung.Hang()
	flood := exec.Command("/proc/self/exe", "test-read", "flood", site.file("hung"), "200")
	var out strings.Builder
	flood.Stdout, flood.Stderr = &out, &out
	if err := flood.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "200 reads outstanding", func() bool {
		st := stats(s, "hung")
		return st.InFlight == fusedev.DefaultMaxInFlight && st.InFlight+st.Waiting == 200
	})
	beside, err := readTask("latency", site.file("well"))
	if err != nil {
		t.Fatalf("%v: %s", err, beside)
	}
	t.Logf("p50 and p99 of 4 KiB reads: %s alone, %s beside 200 hung reads", alone, beside)

	if err := s.Remove(t.Context(), "hung"); err != nil {
		t.Error(err)
	}
	if err := flood.Wait(); err != nil {
		t.Errorf("flood: %v", err)
	}
	if got := strings.TrimSpace(out.String()); got != "200 input/output error" {
		t.Errorf("hung reads ended with %q", got)
	}
	if err := s.Remove(t.Context(), "hung"); !errors.Is(err, fusedev.ErrNotFound) {
		t.Errorf("second Remove = %v", err)
	}
}

// TestRemoveMounted removes a device whose mount is being read and hangs.
func TestRemoveMounted(t *testing.T) {
	for _, fsType := range fsTypes {
		t.Run(fsType, func(t *testing.T) {
			site := newSite(t)
			s := site.open(t)
			hung, target := mountHanging(t, site, s, fsType)
			hung.Hang()
			result := make(chan error, 1)
			go func() {
				_, err := readTask("sum", target)
				result <- err
			}()
			waitFor(t, "a hung read", func() bool { return hung.Stuck() > 0 })
			if err := s.Remove(t.Context(), "d"); err != nil {
				t.Error(err)
			}
			if err := <-result; err == nil {
				t.Error("reading from a removed device succeeded")
			}
			if err := s.Unmount(t.Context(), target); err != nil {
				t.Error(err)
			}
		})
	}
}

// mountHanging mounts a small image behind a device that can be made to hang.
func mountHanging(t testing.TB, site *site, s *fusedev.Server, fsType string) (*devicetest.Hanging, string) {
	t.Helper()
	src := t.TempDir()
	makeTree(t, src, 1<<20)
	dev, err := daemonDevice{Image: makeImage(t, fsType, src)}.open()
	if err != nil {
		t.Fatal(err)
	}
	hung := devicetest.NewHanging(dev)
	mustAdd(t, s, "d", hung)
	target := site.target(t, "m")
	if err := s.Mount(t.Context(), "d", fusedev.Mount{Target: target}); err != nil {
		t.Fatal(err)
	}
	return hung, target
}

// TestKilledReaderIsReleased kills a process that waits for file data. (One
// that waits for metadata of ext4 is beyond help: the kernel sleeps
// uninterruptibly in wait_on_buffer, as on a real disk.)
func TestKilledReaderIsReleased(t *testing.T) {
	for _, fsType := range fsTypes {
		t.Run(fsType, func(t *testing.T) {
			site := newSite(t)
			s := site.open(t)
			hung, target := mountHanging(t, site, s, fsType)
			if out, err := readTask("sum", target); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if out, err := readTask("forget", site.file("d")); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			hung.Hang()
			cmd := exec.Command("/proc/self/exe", "test-read", "sum", target)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "a hung read", func() bool { return hung.Stuck() > 0 })
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the end of the killed reader", func() bool { return !alive(cmd.Process.Pid) })
			_ = cmd.Wait()
			hung.Resume()
		})
	}
}

// TestSignalsDoNotFailReads sends signals to a process while it reads slowly.
func TestSignalsDoNotFailReads(t *testing.T) {
	for _, fsType := range fsTypes {
		t.Run(fsType, func(t *testing.T) {
			site := newSite(t)
			s := site.open(t)
			src := t.TempDir()
			if err := os.WriteFile(filepath.Join(src, "f"), devicetest.Random(256<<10), 0o600); err != nil {
				t.Fatal(err)
			}
			dev, err := daemonDevice{Image: makeImage(t, fsType, src), Delay: 5 * time.Millisecond}.open()
			if err != nil {
				t.Fatal(err)
			}
			mustAdd(t, s, "d", dev)
			target := site.target(t, "m")
			if err := s.Mount(t.Context(), "d", fusedev.Mount{Target: target}); err != nil {
				t.Fatal(err)
			}
			if out, err := readTask("signals", filepath.Join(target, "f")); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			if err := s.Unmount(t.Context(), target); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFailingDevice checks that a device's errors get to reader and observer.
func TestFailingDevice(t *testing.T) {
	site := newSite(t)
	var seen recorder
	site.cfg.Observer = &seen
	s := site.open(t)
	mustAdd(t, s, "bad", devicetest.FailEvery(devicetest.Bytes(make([]byte, 1<<20)), 5))
	if out, err := readTask("file", site.file("bad")); err == nil || !strings.Contains(out, syscall.EIO.Error()) {
		t.Errorf("reading = %v: %s; want EIO", err, out)
	}
	if errs := seen.of("bad"); len(errs) == 0 || !errors.Is(errs[0], devicetest.ErrInjected) {
		t.Errorf("observed %v", errs)
	}
}
