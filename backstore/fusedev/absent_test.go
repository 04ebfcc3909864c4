package fusedev_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLoopIsListedWithoutDaemon asks about a loop device that was written while
// there is no daemon, as listing the loop devices of the machine does.
func TestLoopIsListedWithoutDaemon(t *testing.T) {
	site := newSite(t)
	file := site.newDisk(t, "disk", 16<<20)
	d := site.startDisk(t, diskConfig{File: file})
	name := site.oneLoop(t)
	shell(t, `dd if=/dev/zero of="$1" bs=64k count=1 oflag=direct conv=fsync status=none`, name)
	dev, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	d.kill(t)
	answer := make(chan error, 1)
	go func() {
		_, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
		answer <- err
	}()
	waitFor(t, "the status of a loop device", func() bool { return len(answer) == 1 })
	if err := <-answer; err != nil {
		t.Errorf("asking about a loop device: %v", err)
	}
	dev.Close()

	s := site.open(t)
	addDisk(t, s, "d", file)
	s.Ready()
	if err := s.Unloop(t.Context(), "d"); err != nil {
		t.Error(err)
	}
}
