package fusedev_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/backstore/fusedev"
)

// rounds returns how often a stress test repeats, from FUSEDEV_ROUNDS.
func rounds(t testing.TB, normal int) int {
	t.Helper()
	if v := os.Getenv("FUSEDEV_ROUNDS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("FUSEDEV_ROUNDS: %v", err)
		}
		return n
	}
	if testing.Short() {
		return min(normal, 3)
	}
	return normal
}

// images makes a tree and an image of it for each type, each with two
// devices, fast and slow.
func images(t testing.TB, site *site, bytes int) (devices []daemonDevice, sum string) {
	t.Helper()
	src := t.TempDir()
	makeTree(t, src, bytes)
	sum, err := treeSum(src)
	if err != nil {
		t.Fatal(err)
	}
	for _, fsType := range fsTypes {
		image := makeImage(t, fsType, src)
		for name, delay := range map[string]time.Duration{"fast": 0, "slow": 300 * time.Microsecond} {
			id := fsType + "-" + name
			devices = append(devices, daemonDevice{ID: id, Image: image, Target: site.target(t, id), Delay: delay})
		}
	}
	return devices, sum
}

// startReaders starts a reader for each device.
func startReaders(t testing.TB, site *site, devices []daemonDevice, sum string) []*reader {
	t.Helper()
	var readers []*reader
	for _, d := range devices {
		readers = append(readers, startReader(t, d.Target, sum, filepath.Join(site.cfg.RuntimeDir, "devices", d.ID)))
	}
	return readers
}

// TestKillWhileReading kills the daemon again and again while processes
// compare trees.
func TestKillWhileReading(t *testing.T) {
	site := newSite(t)
	devices, sum := images(t, site, 8<<20)
	file := site.write(t, daemonConfig{Devices: devices})
	d := startDaemon(t, file)
	d.waitReady(t)
	readers := startReaders(t, site, devices, sum)
	for range rounds(t, 20) {
		// Sometimes before the successor has mounted, or even opened.
		if rand.IntN(4) > 0 {
			d.waitReady(t)
		}
		time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
		d.kill(t)
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		d = startDaemon(t, file)
	}
	d.waitReady(t)
	for i, r := range readers {
		r.finish(t)
		t.Logf("%s: %d rounds", devices[i].ID, r.rounds.Load())
	}
	d.kill(t)
}

// TestKillWhileAttaching kills the daemon again and again while it attaches
// and detaches devices.
func TestKillWhileAttaching(t *testing.T) {
	site := newSite(t)
	devices, _ := images(t, site, 2<<20)
	file := site.write(t, daemonConfig{Churn: devices})
	d := startDaemon(t, file)
	var cycles int64
	for range rounds(t, 20) {
		if rand.IntN(4) > 0 {
			d.waitReady(t)
		}
		time.Sleep(time.Duration(rand.IntN(400)) * time.Millisecond)
		d.kill(t)
		cycles += d.cycles.Load()
		d = startDaemon(t, file)
	}
	waitFor(t, "undisturbed attach and detach", func() bool {
		select {
		case err := <-d.done:
			t.Fatalf("daemon ended: %v: %s", err, d.stderr.String())
		default:
		}
		return d.cycles.Load() > 0
	})
	d.kill(t)
	t.Logf("%d devices attached, read and detached between kills", cycles)
}

// TestSecondDaemonIsRefused starts a server beside a running one.
func TestSecondDaemonIsRefused(t *testing.T) {
	site := newSite(t)
	site.open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if s, err := fusedev.Open(ctx, site.cfg); !errors.Is(err, fusedev.ErrInUse) {
		t.Errorf("second Open = %v, %v; want ErrInUse", s, err)
	}
}

// TestHolderIsReplaced kills the holder under a running daemon, and later the
// daemon.
func TestHolderIsReplaced(t *testing.T) {
	site := newSite(t)
	devices, sum := images(t, site, 2<<20)
	file := site.write(t, daemonConfig{Devices: devices})
	d := startDaemon(t, file)
	d.waitReady(t)
	readers := startReaders(t, site, devices, sum)
	for range rounds(t, 5) {
		old := holderPID(t, site)
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "a new holder", func() bool { pid := holderPID(t, site); return pid != 0 && pid != old })
		d.kill(t)
		d = startDaemon(t, file)
		d.waitReady(t)
	}
	for _, r := range readers {
		r.finish(t)
	}
	d.kill(t)
}

// TestBothKilled kills holder and daemon: the mounts are lost, but the next
// daemon cleans up and mounts anew.
func TestBothKilled(t *testing.T) {
	site := newSite(t)
	devices, sum := images(t, site, 2<<20)
	file := site.write(t, daemonConfig{Devices: devices})
	for range 3 {
		d := startDaemon(t, file)
		d.waitReady(t)
		for _, dev := range devices {
			if got, err := sumOf(t, dev.Target); err != nil || got != sum {
				t.Fatalf("sum of %s = %s, %v; want %s", dev.ID, got, err, sum)
			}
		}
		killBoth(t, site, d)
	}
}

// killBoth kills a daemon and its holder.
func killBoth(t testing.TB, site *site, d *daemon) {
	t.Helper()
	pid := holderPID(t, site)
	// Stopped first, so that it cannot replace the holder.
	if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.kill(t)
	waitFor(t, "the end of the holder", func() bool { return !alive(pid) })
}
