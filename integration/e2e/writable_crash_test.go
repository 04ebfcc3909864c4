package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/integration/node"
)

// keepWriting writes files that are made durable, renamed and removed until /run/stop
// is there, each with a sum beside it, then compares them and prints what it found.
const keepWriting = `mkdir -p /data && cd /data || exit 1
i=0
while [ ! -e /run/stop ]; do
	i=$((i+1)); f=$((i%40))
	dd if=/dev/urandom of=new bs=1000 count=$((1+i*7%90)) conv=fsync 2>/dev/null || { echo "FAILED to write, round $i"; exit 1; }
	sha256sum < new > new.sum && rm -f $f.sum && mv new $f && mv new.sum $f.sum || { echo "FAILED to rename, round $i"; exit 1; }
	[ $((i%7)) != 0 ] || rm -f $(((i+13)%40)).sum $(((i+13)%40))
done
` + compareSums + `
echo "$i rounds" > /rounds; touch /ready; sleep 100000`

// compareSums prints the names of files that differ from their sums, and how many do
// not.
const compareSums = `good=0; for s in /data/*.sum; do
	if [ "$(sha256sum < ${s%.sum})" = "$(cat $s)" ]; then good=$((good+1)); else echo "DIFFERS $s"; fi
done; echo "$good good"`

// TestKillWhileWriting kills the daemon at random moments while a container writes to
// a root of its own, also while that is committed, and commits it in the end.
func TestKillWhileWriting(t *testing.T) {
	for _, c := range []struct{ mode, layer string }{{"dir", "append"}, {"dir", "sparse"}, {"dev", "append"}} {
		t.Run(c.mode+" "+c.layer, func(t *testing.T) { t.Parallel(); killWhileWriting(t, c.mode, c.layer) })
	}
}

func killWhileWriting(t *testing.T, mode, layer string) {
	n := ownNode(t, node.Options{Config: map[string]string{"writable": fmt.Sprintf("rw_mode = %q\nlayer = %q\n", mode, layer)}})
	n.push(t, built(t, small), "small:1")
	ref := n.rpull(t, "small:1")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := n.Containerd.Detach(ctx, ref, "box", "/bin/sh", "-c", keepWriting); err != nil {
		t.Fatal(err)
	}
	evictor, stopEvicting := context.WithCancel(ctx)
	evicting := start(func() (string, error) { evict(evictor, n.Path("snapshotter")); return "", nil })
	inFlight, commits := 0, 0
	for i := range kills {
		wait, most := func() (string, error) { return "", nil }, 500
		if mode == "dir" && rand.IntN(3) == 0 {
			name := n.Ref(fmt.Sprintf("committed:kill-%d", i))
			wait = start(func() (string, error) { return n.Containerd.Ours(ctx, "commit", "box", name) })
			n.removeIfThere(t, name)
			most = 3000 // it takes so long
		}
		pause(20, most)
		inFlight += requests(n.Root)
		if err := n.Snapshotter.Kill(ctx); err != nil {
			t.Fatal(err)
		}
		pause(0, 50)
		if err := n.Snapshotter.Start(ctx); err != nil {
			t.Fatal(err)
		}
		// It may have ended with the daemon.
		if out, err := wait(); err == nil && out != "" {
			commits++
		} else if err != nil {
			t.Logf("a commit while the daemon was killed: %v", err)
		}
	}
	stopEvicting()
	evicting() //nolint:errcheck // it has none
	if _, err := n.Containerd.Exec(ctx, "box", "/bin/touch", "/run/stop"); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := n.Containerd.Exec(ctx, "box", "/bin/ls", "/ready"); err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(ctx.Err())
		}
		pause(50, 100)
	}
	n.sumsAreGood(t, "box")
	rounds, err := n.Containerd.Exec(ctx, "box", "/bin/cat", "/rounds")
	if err != nil {
		t.Error(err)
	}
	t.Logf("%s; %d kills with %d requests in flight; %d commits ended well", strings.TrimSpace(rounds), kills, inFlight, commits)
	want, err := n.Containerd.Exec(ctx, "box", "/bin/sh", "-c", state)
	if err != nil {
		t.Fatal(err)
	}
	n.stop(t, "box")
	n.awaitConnection(ctx, t)
	n.commitSnapshot(t, "box", want)
	n.ctr(t, "container", "rm", "box")
	n.nothingHangs(t)
}

// awaitConnection waits until containerd has connected to the snapshotter again: after
// a kill that it noticed, it fails calls for up to seconds before it tries.
func (n machine) awaitConnection(ctx context.Context, t *testing.T) {
	t.Helper()
	for {
		_, err := n.Containerd.Snapshots(ctx, "overlaybd")
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		pause(20, 50)
	}
}

// sumsAreGood compares the files in a container with their sums.
func (n machine) sumsAreGood(t *testing.T, id string) {
	t.Helper()
	out, err := n.Containerd.Exec(t.Context(), id, "/bin/sh", "-c", compareSums)
	if err != nil || strings.Contains(out, "DIFFERS") || strings.HasPrefix(out, "0 good") {
		t.Errorf("files in the container: %s, %v", out, err)
	}
	t.Log(strings.TrimSpace(out))
}

// removeIfThere removes an image at the end of the test, if it was made.
func (n machine) removeIfThere(t *testing.T, ref string) {
	t.Cleanup(func() {
		n.Containerd.Ctr(context.Background(), "image", "rm", "--sync", ref) //nolint:errcheck // it need not be there
	})
}

// requests returns how many requests are in flight on loop devices over files below
// root.
func requests(root string) (n int) {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if p, err := os.ReadFile(f); err != nil || !strings.HasPrefix(string(p), root+"/") {
			continue
		}
		p, _ := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(f)), "inflight"))
		for _, field := range strings.Fields(string(p)) {
			k, _ := strconv.Atoi(field)
			n += k
		}
	}
	return n
}
