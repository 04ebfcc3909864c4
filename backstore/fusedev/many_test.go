package fusedev_test

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/backstore/device/devicetest"
)

// TestManyStuckDevices has more devices whose writes do not come back than the
// readers' spare buffers would be enough for, and others that go on beside them.
func TestManyStuckDevices(t *testing.T) {
	const devices, queue = 12, 32 // what the kernel has in flight for a loop device
	site := newSite(t)
	s := site.open(t)
	f, err := devicetest.OpenFile(site.disk(t, "disk", 64<<20), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	bad := stuck{f, make(chan struct{})}
	release := sync.OnceFunc(func() { close(bad.free) })
	defer release()
	mustAdd(t, s, "good", f)
	mustAdd(t, s, "read", devicetest.Bytes(devicetest.Random(1<<20)))
	piece := devicetest.Random(256 << 10)
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	done := make(chan error, devices*queue)
	for d := range devices {
		id := fmt.Sprintf("bad%d", d)
		mustAdd(t, s, id, bad)
		w, err := openDevice(site.file(id))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() }) // after release, or it would wait
		for i := range int64(queue) {
			go func() {
				_, err := w.WriteAt(piece, i<<18)
				done <- err
			}()
		}
		waitFor(t, "stuck writes of "+id, func() bool { return stats(s, id).InFlight == queue })
	}
	if err := writeTo(site.file("good"), piece); err != nil {
		t.Errorf("writing beside stuck devices: %v", err)
	}
	if out, err := readTask("file", site.file("read")); err != nil {
		t.Errorf("reading beside stuck devices: %v: %s", err, out)
	}
	runtime.GC()
	runtime.ReadMemStats(&now)
	// The payloads, and a little for each.
	if grown := int64(now.HeapInuse) - int64(before.HeapInuse); grown > devices*queue*(280<<10) {
		t.Errorf("the heap grew by %d bytes for %d writes", grown, devices*queue)
	}
	release()
	for range devices * queue {
		if err := <-done; err != nil {
			t.Errorf("a write that was stuck: %v", err)
		}
	}
}

// writeTo writes p to the beginning of a file.
func writeTo(path string, p []byte) error {
	f, err := openDevice(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(p, 0)
	return err
}

// TestStopWhileWritesHang stops a server with more writes that do not come back
// than are handed to it at a time; the next one gets them all.
func TestStopWhileWritesHang(t *testing.T) {
	const handed, writes = 96, 120
	site := newSite(t)
	site.cfg.DrainTimeout = 50 * time.Millisecond
	file := site.disk(t, "disk", 64<<20)
	f, err := devicetest.OpenFile(file, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before := site.openUnmanaged(t)
	mustAdd(t, before.server, "d", stuck{f, nil})
	w, err := openDevice(site.file("d"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	want := devicetest.Random(writes * 4096)
	done := make(chan error, writes)
	for off := int64(0); off < int64(len(want)); off += 4096 {
		go func() {
			_, err := w.WriteAt(want[off:off+4096], off)
			done <- err
		}()
	}
	waitFor(t, "stuck writes", func() bool { return stats(before.server, "d").InFlight >= handed })
	before.stop(t)
	s := site.open(t)
	mustAdd(t, s, "d", f)
	for range writes {
		if err := <-done; err != nil {
			t.Errorf("writing across a restart: %v", err)
		}
	}
	got := make([]byte, len(want))
	if _, err := f.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the device does not hold what was written (%v)", err)
	}
}
