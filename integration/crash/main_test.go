package crash_test

import (
	"os"
	"testing"

	"github.com/reprise-containers/reprise/integration/blockd"
)

// TestMain makes the test binary serve as the daemon that is killed.
func TestMain(m *testing.M) {
	if code, ok := blockd.Child(os.Args); ok {
		os.Exit(code)
	}
	os.Exit(m.Run())
}
