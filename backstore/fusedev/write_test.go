package fusedev_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/device/devicetest"
	"github.com/reprise-containers/reprise/backstore/fusedev"
)

// disk makes a sparse file of size bytes in the site's directory.
func (s *site) disk(t testing.TB, name string, size int64) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path
}

// openDevice opens a device's file, which this process itself serves. An os.File
// of os.OpenFile asks the file whether it can be polled, with the lock of the poller
// held that serving needs.
func openDevice(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// run runs a program and returns what it printed.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}

// allocated returns the bytes of a file that its file system holds.
func allocated(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// TestWrite makes a file system on a device, writes to it, discards, and looks at
// what the device has then.
func TestWrite(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs"} {
		t.Run(fsType, func(t *testing.T) {
			site := newSite(t)
			s := site.open(t)
			file, target := site.disk(t, "disk", 1<<30), site.target(t, "m")
			dev, err := devicetest.OpenFile(file, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer dev.Close()
			ctx := t.Context()
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(s.Add(ctx, "d", dev))
			must(s.Format(ctx, "d", fsType, ""))
			must(s.Mount(ctx, "d", fusedev.Mount{Target: target, FSType: fsType, Writable: true}))
			want := devicetest.Random(32 << 20)
			must(os.WriteFile(filepath.Join(target, "a"), want, 0o600))
			must(os.WriteFile(filepath.Join(target, "b"), want, 0o600))
			run(t, "sync", "-f", target)
			full := allocated(t, file)
			if full < 64<<20 {
				t.Errorf("the device holds %d bytes after 64 MiB were written", full)
			}
			must(os.Remove(filepath.Join(target, "b")))
			run(t, "sync", "-f", target)
			// XFS frees space in the background.
			waitFor(t, "32 MiB to be discarded", func() bool {
				run(t, "fstrim", target)
				return allocated(t, file) < full-30<<20
			})
			must(s.Unmount(ctx, target))
			if fsType == "ext4" {
				run(t, "e2fsck", "-fn", file)
			}
			must(s.Mount(ctx, "d", fusedev.Mount{Target: target, FSType: fsType, Writable: true}))
			got, err := os.ReadFile(filepath.Join(target, "a"))
			must(err)
			if !bytes.Equal(got, want) {
				t.Error("a file is not what was written")
			}
			must(s.Unmount(ctx, target))
			st := s.Stats()[0]
			if st.Written < 64<<20 || st.Discards == 0 || st.Flushes == 0 || st.Errors != 0 {
				t.Errorf("statistics %+v", st)
			}
			must(s.Remove(ctx, "d"))
		})
	}
}

// TestWriteModes opens the files themselves.
func TestWriteModes(t *testing.T) {
	site := newSite(t)
	s := site.open(t)
	file := site.disk(t, "disk", 1<<20)
	dev, err := devicetest.OpenFile(file, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if err := s.Add(t.Context(), "w", dev); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(t.Context(), "r", devicetest.Bytes(make([]byte, 1<<20))); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(site.cfg.RuntimeDir, "devices")
	if f, err := openDevice(filepath.Join(path, "r")); err == nil {
		f.Close()
		t.Error("a device that is read-only was opened for writing")
	}
	f, err := openDevice(filepath.Join(path, "w"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := devicetest.Random(1 << 20)
	if _, err := f.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
	fd := int(f.Fd())
	for mode, want := range map[uint32]error{
		unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE: nil,
		unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE: nil,
		unix.FALLOC_FL_KEEP_SIZE:                             unix.EOPNOTSUPP,
		unix.FALLOC_FL_COLLAPSE_RANGE:                        unix.EOPNOTSUPP,
	} {
		if err := unix.Fallocate(fd, mode, 4096, 4096); !errors.Is(err, want) {
			t.Errorf("fallocate in mode %#x: %v, want %v", mode, err, want)
		}
	}
	clear(want[4096:8192])
	got, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the device does not hold what was written (%v)", err)
	}
	if _, err := f.WriteAt(make([]byte, 512), 1<<20); !errors.Is(err, syscall.EFBIG) {
		t.Errorf("writing behind the end: %v", err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != 1<<20 || st.Mode() != 0o600 {
		t.Errorf("stat: %v, %v", st, err)
	}
}

// growing is a device whose size is set.
type growing struct {
	*devicetest.File
	mu   sync.Mutex
	size int64
}

func (g *growing) Size() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.size
}

func TestResized(t *testing.T) {
	site := newSite(t)
	s := site.open(t)
	f, err := devicetest.OpenFile(site.disk(t, "disk", 2<<20), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g := &growing{File: f, size: 1 << 20}
	if err := s.Add(t.Context(), "g", g); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(site.cfg.RuntimeDir, "devices", "g")
	size := func() int64 {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	if size() != 1<<20 {
		t.Errorf("size %d", size())
	}
	g.mu.Lock()
	g.size = 2 << 20
	g.mu.Unlock()
	if err := s.Resized(t.Context(), "g"); err != nil {
		t.Fatal(err)
	}
	if size() != 2<<20 {
		t.Errorf("size %d after it has grown", size())
	}
	g.mu.Lock()
	g.size = 1 << 20
	g.mu.Unlock()
	if err := s.Resized(t.Context(), "g"); err == nil {
		t.Error("a device shrank")
	}
}

// stuck is a device whose writes wait for a channel to be closed, and its flushes
// for none.
type stuck struct {
	*devicetest.File
	free chan struct{}
}

func (d stuck) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	select {
	case <-d.free:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	return d.File.WriteAt(ctx, p, off)
}

// failing fails writes with ENOSPC.
type failing struct{ *devicetest.File }

func (failing) WriteAt(context.Context, []byte, int64) (int, error) {
	return 0, fmt.Errorf("writing to the host: %w", syscall.ENOSPC)
}

// TestStuckWrites has a device whose writes do not come back, as many as a queue
// holds, and another that goes on beside it; memory stays bounded.
func TestStuckWrites(t *testing.T) {
	site := newSite(t)
	s := site.open(t)
	open := func(name string) *devicetest.File {
		f, err := devicetest.OpenFile(site.disk(t, name, 256<<20), 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	bad := stuck{open("bad"), make(chan struct{})}
	for id, d := range map[string]device.Device{"bad": bad, "good": open("good"), "full": failing{open("full")}} {
		if err := s.Add(t.Context(), id, d); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(site.cfg.RuntimeDir, "devices")
	write := func(name string, off int64, p []byte) error {
		f, err := openDevice(filepath.Join(path, name))
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt(p, off)
		return err
	}
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	piece := devicetest.Random(1 << 20)
	const queued = 32
	done := make(chan error, queued)
	for i := range int64(queued) {
		go func() { done <- write("bad", i<<20, piece) }()
	}
	waitFor(t, "stuck writes", func() bool {
		for _, st := range s.Stats() {
			if st.ID == "bad" {
				return st.InFlight >= queued
			}
		}
		return false
	})
	if err := write("good", 0, piece); err != nil {
		t.Errorf("writing beside a stuck device: %v", err)
	}
	if err := write("full", 0, piece); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("writing to a full host: %v", err)
	}
	var now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&now)
	// A buffer of 1 MiB of address space each, of which a quarter is used.
	if grown := int64(now.HeapInuse) - int64(before.HeapInuse); grown > 64<<20 {
		t.Errorf("the heap grew by %d bytes for %d writes", grown, queued)
	}
	close(bad.free)
	for range queued {
		if err := <-done; err != nil {
			t.Errorf("a write that was stuck: %v", err)
		}
	}
}

// TestRemoveWhileWriting removes a device under a write.
func TestRemoveWhileWriting(t *testing.T) {
	site := newSite(t)
	s := site.open(t)
	f, err := devicetest.OpenFile(site.disk(t, "disk", 1<<20), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Add(t.Context(), "d", stuck{f, nil}); err != nil {
		t.Fatal(err)
	}
	open, err := openDevice(filepath.Join(site.cfg.RuntimeDir, "devices", "d"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	done := make(chan error, 1)
	go func() {
		_, err := open.WriteAt(make([]byte, 4096), 0)
		done <- err
	}()
	waitFor(t, "a write", func() bool { return s.Stats()[0].InFlight == 1 })
	if err := s.Remove(t.Context(), "d"); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, syscall.EIO) {
		t.Errorf("a write to a device that was removed: %v", err)
	}
}

// TestKillWhileWriting kills the daemon again and again while files are written
// and compared on file systems that it serves.
func TestKillWhileWriting(t *testing.T) {
	site := newSite(t)
	var devices []daemonDevice
	prepare := site.openUnmanaged(t)
	for name, delay := range map[string]time.Duration{"fast": 0, "slow": 2 * time.Millisecond} {
		d := daemonDevice{ID: name, Image: site.disk(t, name, 256<<20), Target: site.target(t, name), Delay: delay, Writable: true}
		dev, err := d.open()
		if err == nil {
			err = prepare.server.Add(t.Context(), name, dev)
		}
		if err == nil {
			err = prepare.server.Format(t.Context(), name, "ext4", "")
		}
		if err == nil {
			err = prepare.server.Remove(t.Context(), name)
		}
		if err != nil {
			t.Fatal(err)
		}
		devices = append(devices, d)
	}
	prepare.stop(t)
	file := site.write(t, daemonConfig{Devices: devices})
	d := startDaemon(t, file)
	d.waitReady(t)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, dev := range devices {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := writeAndCompare(filepath.Join(dev.Target, fmt.Sprint(i%7)), i); err != nil {
					t.Errorf("%s: %v", dev.ID, err)
					return
				}
			}
		})
	}
	for range rounds(t, 20) {
		time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
		d.kill(t)
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		d = startDaemon(t, file)
		d.waitReady(t)
	}
	stop()
	wg.Wait()
	for _, dev := range devices {
		run(t, "umount", dev.Target)
		waitFor(t, "end of the loop device", func() bool {
			out, _ := exec.Command("losetup", "-j", filepath.Join(site.cfg.RuntimeDir, "devices", dev.ID)).Output()
			return len(out) == 0
		})
	}
	d.kill(t)
	for _, dev := range devices {
		run(t, "e2fsck", "-fn", dev.Image)
	}
}

// writeAndCompare writes a file, makes it durable and reads it back from the
// device.
func writeAndCompare(path string, i int) error {
	want := devicetest.Random(1<<20 + i%100*512)[i%100*512:]
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(want); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := forget(f); err != nil {
		return err
	}
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, 0); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("a file is not what was written")
	}
	return nil
}
