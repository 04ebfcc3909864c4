package e2e_test

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
)

// kills is how often a crash test kills the daemon.
const kills = 20

// TestKillWhileReading kills the daemon at random moments while a container
// reads all its files over and over.
func TestKillWhileReading(t *testing.T) {
	for _, fs := range []image.FSType{image.Ext4, image.Erofs} {
		t.Run(string(fs), func(t *testing.T) { t.Parallel(); killWhileReading(t, fs) })
	}
}

func killWhileReading(t *testing.T, fs image.FSType) {
	n := ownNode(t, node.Options{})
	files := image.Small()
	files.Generated = map[string]int64{}
	for i := range 300 {
		files.Generated[fmt.Sprintf("data/%d", i)] = int64(1000 + i*250)
	}
	b := image.Build{Name: "files-" + string(fs), Rootfs: files, Format: image.Overlaybd{FSType: fs}}
	n.push(t, built(t, b), "files:1")
	ref := n.rpull(t, "files:1")
	const script = `while [ ! -e /run/stop ]; do ` + sumScript + ` || echo FAILED; echo ROUND; done`

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	reader := start(func() (string, error) {
		return n.Containerd.RunContainer(ctx, "overlaybd", ref, "reader", "/bin/sh", "-c", script)
	})
	n.awaitTask(ctx, t, "reader") // a container can't be created without the daemon
	evictor, stopEvicting := context.WithCancel(ctx)
	evicting := start(func() (string, error) { evict(evictor, n.Path("snapshotter")); return "", nil })
	for range kills {
		pause(20, 400)
		if err := n.Snapshotter.Kill(ctx); err != nil {
			t.Fatal(err)
		}
		pause(0, 50)
		if err := n.Snapshotter.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	stopEvicting()
	evicting() //nolint:errcheck // it has none
	if _, err := n.Containerd.Exec(ctx, "reader", "/bin/touch", "/run/stop"); err != nil {
		cancel()
		out, ended := reader()
		t.Fatalf("%v; the container ended with %v after printing:\n%s", err, ended, out[max(0, len(out)-2000):])
	}
	out, err := reader()
	if err != nil {
		t.Fatal(err)
	}
	rounds := strings.Split(strings.TrimSuffix(out, "ROUND\n"), "ROUND\n")
	want := sums(t, rootfs(t, files))
	for _, r := range rounds {
		compareTrees(t, sorted(r), want)
	}
	t.Logf("%d kills in %d rounds over %d files", kills, len(rounds), len(want))
	n.nothingHangs(t)
}

// hangGrace is how long a process may wait for a disk that others write to.
const hangGrace = 10 * time.Second

// nothingHangs checks that no process of the node stays in uninterruptible sleep.
func (n machine) nothingHangs(t *testing.T) {
	t.Helper()
	for begin := time.Now(); ; pause(20, 50) {
		stuck := n.Stuck()
		if len(stuck) == 0 {
			return
		}
		if time.Since(begin) > hangGrace {
			t.Errorf("processes hang: %v", stuck)
			return
		}
	}
}

// awaitTask waits until the task of a container runs.
func (n machine) awaitTask(ctx context.Context, t *testing.T, id string) {
	t.Helper()
	running := regexp.MustCompile(`(?m)^` + id + `\s+\d+\s+RUNNING`)
	for {
		tasks, err := n.Containerd.Ctr(ctx, "task", "ls")
		if err != nil {
			t.Fatal(err)
		}
		if running.MatchString(tasks) {
			return
		}
		pause(20, 50)
	}
}

// start runs f and returns a function that waits for its result.
func start(f func() (string, error)) func() (string, error) {
	var out string
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { out, err = f() })
	return func() (string, error) { wg.Wait(); return out, err }
}

// pause sleeps for a random time between the two, in milliseconds.
func pause(least, most int) {
	time.Sleep(time.Duration(least+rand.IntN(most-least)) * time.Millisecond)
}

// evict keeps dropping the page cache of all files below root, so that reads
// go down to the daemon again. It reads nothing.
func evict(ctx context.Context, root string) {
	for ctx.Err() == nil {
		filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error { //nolint:errcheck // what can't be dropped stays
			if err != nil || ctx.Err() != nil {
				return ctx.Err()
			}
			if d.Type().IsRegular() {
				drop(p)
			}
			return nil
		})
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func drop(path string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) //nolint:errcheck // best effort
}
