package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
)

// TestKillWhileAttaching kills the daemon at random moments while images are
// attached, read and detached. It speaks to the daemon itself: containerd takes
// up to seconds to connect again.
func TestKillWhileAttaching(t *testing.T) {
	t.Parallel()
	n := ownNode(t, node.Options{})
	names := []string{"small:1", "numpy:1", "numpy:2"}
	n.push(t, built(t, small), names[0])
	n.push(t, built(t, numpy(image.Ext4)), names[1])
	n.push(t, built(t, numpy(image.Erofs)), names[2])
	want := busyboxSum(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for _, name := range names {
		if _, err := n.Containerd.Rpull(ctx, n.Ref(name)); err != nil {
			t.Fatal(err)
		}
	}
	n.Containerd.Stop(ctx) // its garbage collection would remove what it does not know

	sn := n.dial(t)
	tops, err := tops(ctx, sn)
	if err != nil || len(tops) != len(names) {
		t.Fatalf("images %v: %v", tops, err)
	}
	var attached, failed atomic.Int64
	churning, stop := context.WithCancel(ctx)
	churn := start(func() (string, error) {
		for i := 0; churning.Err() == nil; i++ {
			// A call that meets no daemon may fail; wrong data may not come.
			sum, err := attachOnce(ctx, sn, tops[i%len(tops)], n.Path("attached"))
			if err != nil {
				return "", err
			}
			switch sum {
			case want:
				attached.Add(1)
			case "":
				failed.Add(1)
			default:
				return "", fmt.Errorf("read a file with the sum %q, want %q", sum, want)
			}
		}
		return "", nil
	})
	killed := 0
	for ; (killed < kills || attached.Load() < kills) && churning.Err() == nil; killed++ {
		pause(20, 600)
		if err := n.Snapshotter.Kill(ctx); err != nil {
			t.Fatal(err)
		}
		pause(0, 50)
		if err := n.Snapshotter.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if _, err := churn(); err != nil {
		t.Error(err)
	}
	t.Logf("%d kills, %d images attached and detached, %d calls failed for want of a daemon", killed, attached.Load(), failed.Load())
	n.runAll(ctx, t, names, want)
}

// runAll checks that the node works as if nothing had happened.
func (n machine) runAll(ctx context.Context, t *testing.T, names []string, want string) {
	t.Helper()
	if err := n.Containerd.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		out, err := n.Containerd.RunContainer(ctx, "overlaybd", n.Ref(name), fmt.Sprintf("after-%d", i), "/bin/sha256sum", "/bin/busybox")
		if err != nil || !strings.HasPrefix(out, want+" ") {
			t.Errorf("%s afterwards: %q, %v", name, out, err)
		}
	}
	if err := n.Containerd.Empty(ctx); err != nil {
		t.Error(err)
	}
	n.nothingHangs(t)
}

// busyboxSum returns the sum of a file that all images have.
func busyboxSum(t *testing.T) string {
	t.Helper()
	lines := slices.DeleteFunc(sums(t, rootfs(t, image.Small())), func(l string) bool { return !strings.HasSuffix(l, "/bin/busybox") })
	if len(lines) != 1 {
		t.Fatal("the image has no busybox")
	}
	return strings.Fields(lines[0])[0]
}

// dial returns the snapshotter behind the daemon's socket.
func (n machine) dial(t *testing.T) snapshots.Snapshotter {
	t.Helper()
	soon := backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1, MaxDelay: 10 * time.Millisecond}
	conn, err := grpc.NewClient("unix://"+n.Path("snapshotter.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: soon, MinConnectTimeout: time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "overlaybd")
}

// tops returns the snapshots that no other one has as its parent.
func tops(ctx context.Context, sn snapshots.Snapshotter) ([]string, error) {
	var names []string
	parents := map[string]bool{}
	err := sn.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		names = append(names, i.Name)
		parents[i.Parent] = true
		return nil
	})
	return slices.DeleteFunc(names, func(name string) bool { return parents[name] }), err
}

// attachOnce mounts a root file system on the image top at target, sums one
// file, and removes everything, which attaches the image and detaches it. The
// sum is empty if the daemon could not be asked; the error is of what must work
// nevertheless.
func attachOnce(ctx context.Context, sn snapshots.Snapshotter, top, target string) (sum string, err error) {
	const key = "attached"
	mounts, err := sn.Prepare(ctx, key, top)
	if err == nil {
		sum, err = sumMounted(ctx, mounts, target)
	} else {
		err = nil
	}
	return sum, errors.Join(err, removeKey(ctx, sn, key))
}

func sumMounted(ctx context.Context, mounts []mount.Mount, target string) (sum string, err error) {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return "", err
	}
	if err := mount.All(mounts, target); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unix.Unmount(target, 0)) }()
	// Another process: reads may have to wait for the next daemon.
	out, err := exec.CommandContext(ctx, "sha256sum", target+"/bin/busybox").Output()
	if err != nil {
		return "", fmt.Errorf("reading a mounted image: %w", err)
	}
	sum, _, _ = strings.Cut(string(out), " ")
	return sum, nil
}

// removeKey removes a snapshot, which may not exist, as soon as a daemon does it.
func removeKey(ctx context.Context, sn snapshots.Snapshotter, key string) error {
	for {
		err := sn.Remove(ctx, key)
		if err == nil || errdefs.IsNotFound(err) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("removing %s: %w", key, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
