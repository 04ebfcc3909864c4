package fusedev_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/reprise-containers/reprise/backstore/fusedev"
)

// TestMain makes the test binary serve as the package's own processes, as a
// daemon to be killed, and as a reader: a process must not read what it serves
// itself.
func TestMain(m *testing.M) {
	if code, ok := fusedev.Child(os.Args); ok {
		os.Exit(code)
	}
	if len(os.Args) > 2 {
		var err error
		switch os.Args[1] {
		case "test-daemon":
			err = daemonMain(os.Args[2])
		case "test-disk":
			err = diskMain(os.Args[2])
		case "test-read":
			err = readMain(os.Args[2:])
		default:
			os.Exit(m.Run())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}
