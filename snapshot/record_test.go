package snapshot_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/snapshot"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// recorded asks for a recording.
func recorded(file string) snapshots.Opt {
	m := map[string]string{labels.RecordTrace: "yes"}
	if file != "" {
		m[labels.RecordTracePath] = file
	}
	return snapshots.WithLabels(m)
}

// record prepares a container that is recorded and returns where its image is.
func (n *node) record(key, top string) (target, id string) {
	n.t.Helper()
	m, err := n.Prepare(n.t.Context(), key, top, recorded("/tmp/trace"))
	n.must(err)
	return option(n.t, m, "lowerdir"), idOf(n, key) + "-record"
}

func TestRecord(t *testing.T) {
	n := newNode(t)
	top := n.pull("base", "app")
	shared := option(t, n.run("other", top), "lowerdir")
	n.fake.takePrefetched()
	target, id := n.record("c", top)
	if target == shared || filepath.Base(target) != "record" || filepath.Dir(target) != filepath.Dir(n.filesOf("c")) {
		t.Errorf("recorded at %s, shared at %s", target, shared)
	}
	if got := n.fake.recorded[id]; got != (snapshot.RecordOptions{Asked: true, File: "/tmp/trace"}) {
		t.Errorf("Record was told %+v", n.fake.recorded)
	}
	checkImage(t, n.fake.image(target), "", "base", "app")
	if told := n.fake.takePrefetched(); len(told) != 0 {
		t.Errorf("a recording told Prefetch %+v", told)
	}

	// It lasts as long as the snapshot, whatever happens to others.
	n.must(n.Remove(t.Context(), "other"))
	n.must(n.Cleanup(t.Context()))
	if got := n.fake.targets(); !slices.Contains(got, target) {
		t.Errorf("images at %v, want %s", got, target)
	}
	again, err := n.Mounts(t.Context(), "c")
	n.must(err)
	if got := option(t, again, "lowerdir"); got != target || n.fake.count("record") != 1 {
		t.Errorf("mounts %v, %d calls of Record", again, n.fake.count("record"))
	}
	n.must(n.Remove(t.Context(), "c"))
	if got := n.fake.targets(); len(got) != 0 {
		t.Errorf("images at %v", got)
	}
	n.must(clearAll(t.Context(), n))
	checkNothingLeft(t, n.cfg.Root)
}

func TestRecordedViewAndOrdinaryLayer(t *testing.T) {
	n := newNode(t)
	top := n.pull("base")
	n.must(n.unpack("plain", top, plainLabels("plain"), nil))
	m, err := n.View(t.Context(), "v", "plain", recorded(""))
	n.must(err)
	lowers := strings.Split(option(t, m, "lowerdir"), ":")
	if len(lowers) != 2 || filepath.Base(lowers[1]) != "record" {
		t.Errorf("mounts %v", m)
	}
	if got := n.fake.recorded[idOf(n, "v")+"-record"]; got != (snapshot.RecordOptions{Asked: true}) {
		t.Errorf("Record was told %+v", n.fake.recorded)
	}
}

// TestOnlyContainersAreRecorded: whoever makes an image must not make nodes write
// files.
func TestOnlyContainersAreRecorded(t *testing.T) {
	n := newNode(t)
	names := []string{"base", "app"}
	asks := []string{labels.RecordTrace, "yes", labels.RecordTracePath, "/etc/cron.d/x"}
	for i := range names {
		if err := n.pullLayer(names, i, asks...); !errdefs.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	top := chainOf(names...)[1]
	lbls := plainLabels("plain")
	down := unpackLabels([]string{"base", "app", "down"}, 2, append(asks, labels.Download, "download")...)
	for i := 0; i < len(asks); i += 2 {
		lbls[asks[i]] = asks[i+1]
	}
	n.must(n.unpack("plain", top, lbls, nil))
	n.must(n.unpack("down", top, down, map[string]string{"overlaybd.commit": lsmtMagic}))
	n.must(n.pullTraceAsking(asks))
	_, err := n.Prepare(t.Context(), "ns/1/extract-123 x", top, recorded("/etc/cron.d/x")) // ctr pull --local
	n.must(err)
	n.run("c", "plain")
	if n.fake.count("record") != 0 || len(n.fake.recorded) != 0 {
		t.Errorf("recorded %+v", n.fake.recorded)
	}
	// Nor is an image that isn't overlaybd: there is nothing to record.
	n.must(n.unpack("files", "", plainLabels("files"), nil))
	_, err = n.Prepare(t.Context(), "f", "files", recorded("/tmp/x"))
	n.must(err)
	if len(n.fake.recorded) != 0 {
		t.Errorf("recorded %+v", n.fake.recorded)
	}
}

func (n *node) pullTraceAsking(asks []string) error {
	err := n.pullLayer([]string{"base", "app", "trace"}, 2, traceLabels(asks...)...)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func TestFailedRecording(t *testing.T) {
	n := newNode(t)
	top := n.pull("base")
	n.fake.script(func(_ context.Context, call, _ string) error {
		if call == "record" {
			return errInjected
		}
		return nil
	})
	if _, err := n.Prepare(t.Context(), "c", top, recorded("/tmp/trace")); !errors.Is(err, errInjected) {
		t.Errorf("asked for: %v", err)
	}
	if got := names(t, n); len(got) != 1 || len(n.fake.targets()) != 0 {
		t.Errorf("snapshots %v, images at %v", got, n.fake.targets())
	}
	// What only the node wants is no reason for a container not to start.
	n.fake.wanted = testRef
	checkImage(t, n.below("c", top), "", "base")
	target := option(t, n.mountsOf("c"), "lowerdir")
	if filepath.Base(target) == "record" || n.fake.count("record") != 2 {
		t.Errorf("mounted at %s, calls %v", target, n.fake.calls)
	}
	n.must(n.Remove(t.Context(), "c"))
	n.must(clearAll(t.Context(), n))
	checkNothingLeft(t, n.cfg.Root)
}

func (n *node) mountsOf(key string) []mount.Mount {
	n.t.Helper()
	m, err := n.Mounts(n.t.Context(), key)
	n.must(err)
	return m
}

func TestRecordedByTheNode(t *testing.T) {
	n := newNode(t)
	top := n.pull("base")
	trace := n.pullTrace("base", "trace")
	n.fake.wanted = testRef
	n.run("c", top)
	if got, ok := n.fake.recorded[idOf(n, "c")+"-record"]; !ok || got != (snapshot.RecordOptions{}) {
		t.Errorf("recorded %+v", n.fake.recorded)
	}
	n.run("t", trace) // it has one
	if len(n.fake.recorded) != 1 {
		t.Errorf("recorded %+v", n.fake.recorded)
	}
	if target, _ := n.record("again", trace); n.fake.image(target).Trace == nil {
		t.Error("an image with a trace is recorded without it")
	}
}

func TestRecordingNotSupported(t *testing.T) {
	n := &node{t: t, cfg: snapshot.Config{Root: filepath.Join(t.TempDir(), "root")}, fake: newFake(t)}
	s, err := snapshot.New(t.Context(), n.cfg, struct{ snapshot.Devices }{n.fake})
	n.must(err)
	defer s.Close()
	n.Snapshotter = s
	top := n.pull("base")
	if _, err := n.Prepare(t.Context(), "c", top, recorded("/tmp/x")); !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), labels.RecordTrace) {
		t.Errorf("%v", err)
	}
	n.run("c", top)
}

// TestRestartDuringRecording: the container goes on, the recording doesn't.
func TestRestartDuringRecording(t *testing.T) {
	n := newNode(t)
	top := n.pull("base")
	target, id := n.record("c", top)
	n.restart()
	var found []backstore.Attachment
	for _, a := range n.fake.recovered {
		if a.ID == id {
			found = append(found, a)
		}
	}
	if len(found) != 1 || found[0].Target != target || len(found[0].Image.Layers) != 1 {
		t.Errorf("to be recovered: %+v", n.fake.recovered)
	}
	if got := n.fake.abandoned[id]; len(n.fake.abandoned) != 1 || got.File != "/tmp/trace" {
		t.Errorf("abandoned %+v", n.fake.abandoned)
	}
	n.must(n.Cleanup(t.Context()))
	if got := n.fake.targets(); len(got) != 1 || got[0] != target {
		t.Errorf("images at %v, want %s", got, target)
	}

	// After a reboot it is an image like others, at the place it had.
	n.fake.reboot()
	n.restart()
	if got := option(t, n.mountsOf("c"), "lowerdir"); got != target || n.fake.count("record") != 1 {
		t.Errorf("mounted at %s, calls %v", got, n.fake.calls)
	}
	n.must(n.Remove(t.Context(), "c"))
	if got := n.fake.targets(); len(got) != 0 {
		t.Errorf("images at %v", got)
	}
	n.must(clearAll(t.Context(), n))
	checkNothingLeft(t, n.cfg.Root)
}

func TestRecordedContainerIsCommitted(t *testing.T) {
	n := newNode(t)
	top := n.pull("base")
	target, _ := n.record("c", top)
	n.must(n.Commit(t.Context(), "layer", "c"))
	n.must(n.Cleanup(t.Context()))
	if got := n.fake.targets(); len(got) != 0 {
		t.Errorf("images at %v, recorded at %s", got, target)
	}
	lowers := strings.Split(option(t, n.run("c2", "layer"), "lowerdir"), ":")
	if len(lowers) != 2 || filepath.Base(lowers[1]) != "mountpoint" {
		t.Errorf("lower directories %v", lowers)
	}
	n.must(clearAll(t.Context(), n))
	checkNothingLeft(t, n.cfg.Root)
}

// TestBusyRecording: what can't be detached when its container goes is detached
// later.
func TestBusyRecording(t *testing.T) {
	for _, async := range []bool{false, true} {
		n := newNodeWith(t, snapshot.Config{AsyncRemove: async})
		top := n.pull("base")
		target, id := n.record("c", top)
		n.fake.script(func(_ context.Context, call, _ string) error {
			if call == "detach" {
				return errors.New("device or resource busy")
			}
			return nil
		})
		n.must(n.Remove(t.Context(), "c"))
		if err := n.Cleanup(t.Context()); err == nil {
			t.Error("Cleanup does not say that something is busy")
		}
		n.fake.script(nil)
		n.must(n.Cleanup(t.Context()))
		if got := n.fake.targets(); len(got) != 0 {
			t.Errorf("%s is still mounted at %v, %s", id, got, target)
		}
		n.must(clearAll(t.Context(), n))
		n.must(n.Cleanup(t.Context()))
		checkNothingLeft(t, n.cfg.Root)
	}
}
