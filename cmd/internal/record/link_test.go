package record_test

import (
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/cmd/internal/record"
)

// TestRemoveLink works in a network namespace that goes with its thread.
func TestRemoveLink(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	runtime.LockOSThread() // and never unlocks it: no other test gets this thread
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip(err)
	}
	if err := record.RemoveLink("r-none"); err != nil {
		t.Errorf("a link that is not there: %v", err)
	}
	if out, err := exec.Command("ip", "link", "add", "r-test", "type", "bridge").CombinedOutput(); err != nil {
		t.Skipf("%v: %s", err, out)
	}
	if _, err := net.InterfaceByName("r-test"); err != nil {
		t.Fatal(err)
	}
	if err := record.RemoveLink("r-test"); err != nil {
		t.Error(err)
	}
	if _, err := net.InterfaceByName("r-test"); err == nil {
		t.Error("the link is still there")
	}
	// The kernel's reason is told.
	if err := record.RemoveLink("lo"); err == nil || !strings.Contains(err.Error(), "not supported") {
		t.Errorf("removing the loopback: %v", err)
	}
}
