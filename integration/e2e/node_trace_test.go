package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/integration/coldstart"
	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// TestTraceReferrer records a container because the node is configured to, attaches
// the trace to the image, which stays as it is, and starts with it on a node that
// looks for such traces.
func TestTraceReferrer(t *testing.T) {
	n := ownNode(t, node.Options{Config: map[string]string{"trace": "record = ['*/redis:*']\nrecord_time = '10m'\n"}})
	n.push(t, layered(t, image.Starts()[0].Layered()), "originals/redis:1")
	n.convert(t, "originals/redis:1", "redis:1")
	without, err := coldstart.Lazy(t.Context(), n.Node, "redis:1")
	if err != nil {
		t.Fatal(err)
	}
	trace := n.automatic(t)
	before := n.digest(t, "redis:1")
	out, err := n.Run(t.Context(), n.Path("bin", "reprise"), "trace", "attach", "--workload", "ping", n.Ref("redis:1"), trace)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(out)
	if after := n.digest(t, "redis:1"); after != before {
		t.Errorf("the image was %s and is %s", before, after)
	}
	if err := coldstart.Forget(t.Context(), n.Node, map[string]string{"trace": "referrers = true\nworkload = 'ping'\n"}); err != nil {
		t.Fatal(err)
	}
	with, err := coldstart.Lazy(t.Context(), n.Node, "redis:1")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("without: %d requests, %d bytes, %v; with: %d requests, %d bytes, %v",
		without.Stats.Requests, without.Stats.Bytes, without.Ready(), with.Stats.Requests, with.Stats.Bytes, with.Ready())
	if with.Stdout != without.Stdout || with.Stats.Requests*fewerRequests > without.Stats.Requests {
		t.Errorf("%d requests with a trace, %d without; printed %q and %q", with.Stats.Requests, without.Stats.Requests, with.Stdout, without.Stdout)
	}
	for metric, min := range map[string]float64{
		"reprise_prefetch_extents_total": 100, "reprise_prefetch_used_extents_total": 100,
		`reprise_prefetch_images_total{outcome="replayed"}`: 1, "reprise_prefetch_ahead_seconds_count": 100,
	} {
		if v, err := n.Snapshotter.Metric(t.Context(), metric); err != nil || v < min {
			t.Errorf("%s is %v, %v", metric, v, err)
		}
	}
}

// automatic returns the only recording that the node has made by itself.
func (n machine) automatic(t *testing.T) string {
	t.Helper()
	pattern := n.Path("snapshotter", "traces", "*", "*.trace.ok")
	for {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) > 1 {
			t.Fatalf("recordings %v, %v", found, err)
		}
		if len(found) == 1 {
			return strings.TrimSuffix(found[0], ".ok")
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// digest returns that of an image in the registry.
func (n machine) digest(t *testing.T, name string) string {
	t.Helper()
	client, err := registry.New(registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	desc, err := client.Resolve(t.Context(), n.Registry.Address+"/"+name)
	if err != nil {
		t.Fatal(err)
	}
	return desc.Digest.String()
}

// TestRecordedThroughCrash kills the daemon under a container that is recorded: the
// container goes on, and the next daemon says that there will be no trace.
func TestRecordedThroughCrash(t *testing.T) {
	n := ownNode(t, node.Options{})
	n.push(t, built(t, small), "crash:1")
	n.rpull(t, "crash:1")
	dir := n.Path("crash")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "trace")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.ctr(t, "run", "-d", "--snapshotter", "overlaybd",
		"--snapshotter-label", labels.RecordTrace+"=yes", "--snapshotter-label", labels.RecordTracePath+"="+file,
		n.Ref("crash:1"), "recorded", "/bin/sh", "-c", "sleep 1000")
	if _, err := os.Stat(file + ".lock"); err != nil {
		t.Error(err)
	}
	if err := n.Snapshotter.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Snapshotter.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, err := n.Containerd.Exec(t.Context(), "recorded", "/bin/sh", "-c", sumScript)
	if err != nil || !strings.Contains(out, "/etc/layers") {
		t.Errorf("the container does not go on: %q, %v", out, err)
	}
	reason, err := os.ReadFile(file + ".err")
	if err != nil || !strings.Contains(string(reason), "stopped during the recording") {
		t.Errorf("the reason is %q, %v", reason, err)
	}
	n.ctr(t, "task", "kill", "-s", "KILL", "recorded")
	n.ctr(t, "task", "rm", "-f", "recorded")
	n.ctr(t, "container", "rm", "recorded")
	for { // until containerd has collected the snapshot
		left, err := filepath.Glob(n.Path("snapshotter", "snapshots", "*", "record"))
		if err != nil || t.Context().Err() != nil {
			t.Fatalf("%v is left, %v", left, err)
		}
		if len(left) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
}
