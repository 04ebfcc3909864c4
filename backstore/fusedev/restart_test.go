package fusedev_test

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/backstore/device/devicetest"
	"github.com/reprise-containers/reprise/backstore/fusedev"
)

// running is a server that a test stops itself.
type running struct {
	server *fusedev.Server
	cancel context.CancelFunc
	served chan error
}

// openUnmanaged opens and runs a server that the test must stop.
func (s *site) openUnmanaged(t testing.TB) *running {
	t.Helper()
	server, err := fusedev.Open(t.Context(), s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{server: server, cancel: cancel, served: make(chan error, 1)}
	go func() { r.served <- server.Run(ctx) }()
	return r
}

// stop stops the server as the end of a daemon does.
func (r *running) stop(t testing.TB) {
	t.Helper()
	r.cancel()
	if err := <-r.served; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := r.server.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// TestReadsWaitForAdd reads devices of an earlier server before they are added
// to the next one.
func TestReadsWaitForAdd(t *testing.T) {
	site := newSite(t)
	contents := devicetest.Random(64 << 10)
	before := site.openUnmanaged(t)
	mustAdd(t, before.server, "back", devicetest.Bytes(contents))
	mustAdd(t, before.server, "gone", devicetest.Bytes(contents))
	before.stop(t)

	s := site.open(t)
	results := make(map[string]chan error)
	for _, id := range []string{"back", "gone"} {
		result := make(chan error, 1)
		results[id] = result
		go func() {
			var out bytes.Buffer
			cmd := exec.Command("/proc/self/exe", "test-read", "cat", site.file(id))
			cmd.Stdout = &out
			err := cmd.Run()
			if err == nil && !bytes.Equal(out.Bytes(), contents) {
				err = errors.New("wrong bytes")
			}
			result <- err
		}()
		waitFor(t, "a waiting read of "+id, func() bool { return stats(s, id).Requests > 0 })
	}
	if err := s.Add(t.Context(), "back", devicetest.Bytes(contents[:4096])); err == nil {
		t.Error("adding a device of another size succeeded")
	}
	mustAdd(t, s, "back", devicetest.Bytes(contents))
	if err := <-results["back"]; err != nil {
		t.Errorf("reading back: %v", err)
	}
	s.Ready()
	if err := <-results["gone"]; err == nil {
		t.Error("reading a device that is gone succeeded")
	}
	// It may still come.
	mustAdd(t, s, "gone", devicetest.Bytes(contents))
	if out, err := readTask("file", site.file("gone")); err != nil {
		t.Errorf("reading a late device: %v: %s", err, out)
	}
}

// TestStopWhileReadsHang stops a server with a hung read; the next one gets
// the read.
func TestStopWhileReadsHang(t *testing.T) {
	site := newSite(t)
	site.cfg.DrainTimeout = 50 * time.Millisecond
	contents := devicetest.Random(64 << 10)
	before := site.openUnmanaged(t)
	hung := devicetest.NewHanging(devicetest.Bytes(contents))
	mustAdd(t, before.server, "d", hung)
	hung.Hang()
	result := make(chan error, 1)
	go func() {
		_, err := readTask("file", site.file("d"))
		result <- err
	}()
	waitFor(t, "a hung read", func() bool { return hung.Stuck() > 0 })
	before.stop(t)
	s := site.open(t)
	mustAdd(t, s, "d", devicetest.Bytes(contents))
	if err := <-result; err != nil {
		t.Errorf("reading across a restart: %v", err)
	}
}

// TestShutdownBusy shuts down with a file open, and again without.
func TestShutdownBusy(t *testing.T) {
	site := newSite(t)
	site.cfg.Patience = 100 * time.Millisecond
	s := site.open(t)
	_, target := mountHanging(t, site, s, "ext4")
	cmd := exec.Command("sleep", "300")
	cmd.Dir = target
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "sleep", func() bool { return alive(cmd.Process.Pid) })
	if err := s.Shutdown(t.Context()); !errors.Is(err, fusedev.ErrBusy) {
		t.Errorf("Shutdown = %v, want ErrBusy", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if out, err := readTask("sum", target); err != nil {
		t.Errorf("reading after a refused shutdown: %v: %s", err, out)
	}
}
