package cache_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

// killDir tells a child of TestKill, which is this test binary, its cache.
const killDir = "REPRISE_CACHE_KILL_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		if err := readUntilKilled(dir); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func killData() []byte { return cachetest.Random(6<<20+99, 77) }

func killConfig(dir string) cache.Config {
	return cache.Config{Dir: dir, MaxBytes: 3 << 20, CheckpointEvery: time.Millisecond}
}

func readUntilKilled(dir string) error {
	c, err := cache.Open(killConfig(dir))
	if err != nil {
		return err
	}
	data := killData()
	b := c.Blob(blobtest.Bytes(data))
	ctx := context.Background()
	for {
		if err := cachetest.Hammer(ctx, b, data, 3, 10); err != nil {
			return err
		}
		if err := c.Sync(ctx); err != nil {
			return err
		}
	}
}

// TestKill kills a process at a random moment while it stores and evicts, and
// reads what it left, on a real file system.
func TestKill(t *testing.T) {
	dir, data := t.TempDir(), killData()
	rounds := 10
	if testing.Short() {
		rounds = 3
	}
	var left int64
	for round := range rounds {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), killDir+"="+dir)
		child.Stderr = os.Stderr
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(100+rand.IntN(400)) * time.Millisecond)
		child.Process.Kill()
		var exit *exec.ExitError
		if err := child.Wait(); !errors.As(err, &exit) || exit.ExitCode() != -1 {
			t.Fatalf("round %d: the child ended by itself: %v", round, err)
		}
		c := openCache(t, killConfig(dir))
		if err := cachetest.Check(t.Context(), c.Blob(blobtest.Bytes(data)), data, 0, len(data)); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		s := c.Stats()
		left += s.BytesServed - s.BytesFetched
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if left == 0 {
		t.Error("no killed process left anything to read: the test shows nothing")
	}
	t.Logf("%d rounds, %d bytes came from what killed processes left", rounds, left)
}
