package e2e_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/integration/coldstart"
	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/sandbox"
	"github.com/reprise-containers/reprise/integration/sandbox/wire"
)

// fewerRequests is how many times fewer requests than on a frugal node a start with a trace is to take:
// documents, tables of the layers and one stream, where without it there are
// hundreds.
const fewerRequests = 20

// fewerWithoutData is the same where each range of the plan is a request, or one for
// several that are near each other.
const fewerWithoutData = 1

// TestTraceFlow is what a new user does: convert, record, push; and on a node that
// has nothing, pull and run.
func TestTraceFlow(t *testing.T) {
	for _, flags := range [][]string{nil, {"--no-data"}} {
		t.Run(fmt.Sprint(flags), func(t *testing.T) {
			n := ownNode(t, node.Options{Config: coldstart.Frugal})
			n.push(t, layered(t, image.Starts()[0].Layered()), "originals/redis:1")
			n.convert(t, "originals/redis:1", "redis:1")
			without, err := coldstart.Lazy(t.Context(), n.Node, "redis:1")
			if err != nil {
				t.Fatal(err)
			}
			t.Log(n.record(t, flags, "redis:1", "redis:1-trace"))
			t.Log(n.pushTraced(t, "redis:1-trace"))
			n.checkTraced(t, "redis:1", "redis:1-trace")
			n.forget(t)
			with, err := coldstart.Lazy(t.Context(), n.Node, "redis:1-trace")
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("without: %d requests, %d bytes, %v; with: %d requests, %d bytes, %v",
				without.Stats.Requests, without.Stats.Bytes, without.Ready(), with.Stats.Requests, with.Stats.Bytes, with.Ready())
			if with.Stdout != without.Stdout || !strings.Contains(with.Stdout, "PONG") {
				t.Errorf("with a trace the container printed %q, without %q", with.Stdout, without.Stdout)
			}
			fewer := fewerRequests
			if flags != nil {
				fewer = fewerWithoutData
			}
			if with.Stats.Requests*fewer > without.Stats.Requests {
				t.Errorf("%d requests with a trace, %d without", with.Stats.Requests, without.Stats.Requests)
			}
		})
	}
}

// TestTraceEnds ends recordings in every way: each is a usable trace, and the new
// image runs at once.
func TestTraceEnds(t *testing.T) {
	t.Parallel()
	n := ownNode(t, node.Options{})
	n.push(t, built(t, small), "ends:1")
	n.rpull(t, "ends:1")
	for _, c := range []struct {
		name, command, time, want string
		signal                    syscall.Signal
	}{
		{"exit", "echo started; exit 3", "60", "status 3", 0},
		{"timeout", "echo started; sleep 1000", "2", "the time was over", 0},
		{"deaf", "trap '' TERM; echo started; while :; do sleep 1; done", "1", "the time was over", 0},
		{"interrupt", "echo started; sleep 1000", "600", "the user stopped it", syscall.SIGINT},
		{"terminate", "echo started; sleep 1000", "600", "the user stopped it", syscall.SIGTERM},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := "ends:" + c.name
			p, err := n.Containerd.StartRecordTrace([]string{"--time", c.time}, n.Ref("ends:1"), n.Ref(name), "/bin/sh", "-c", "cat /etc/layers; "+c.command)
			if err != nil {
				t.Fatal(err)
			}
			n.removeLater(t, n.Ref(name))
			awaitLog(t, p, "started")
			if c.signal != 0 {
				if err := p.Signal(c.signal); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Await(t.Context()); err != nil {
				t.Fatal(err)
			}
			if out, err := p.Log(); err != nil || !strings.Contains(out, c.want) {
				t.Errorf("printed %q, %v; want %q", out, err, c.want)
			}
			out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", n.Ref(name), "at-once")
			if err != nil || out != smallOutput {
				t.Errorf("the new image printed %q, %v", out, err)
			}
			n.pushTraced(t, name)
			n.trace(t, name).records(t)
			n.nothingLeft(t)
		})
	}
}

// TestTraceFails records what does not start.
func TestTraceFails(t *testing.T) {
	t.Parallel()
	n := ownNode(t, node.Options{})
	n.push(t, built(t, small), "fails:1")
	n.rpull(t, "fails:1")
	for _, c := range []struct{ flags, args []string }{
		{nil, []string{"/bin/none"}},
		{[]string{"--snapshotter", "overlayfs"}, nil},
		{[]string{"--runtime", "io.containerd.none.v2"}, nil},
		{[]string{"--time", "0"}, nil},
	} {
		out, err := n.Containerd.RecordTrace(t.Context(), c.flags, n.Ref("fails:1"), n.Ref("fails:2"), c.args...)
		if err == nil {
			t.Errorf("%v %v: no error: %s", c.flags, c.args, out)
		}
		t.Log(err)
	}
	n.nothingLeft(t)
	if out := n.ctr(t, "image", "ls", "-q"); strings.Contains(out, n.Ref("fails:2")) {
		t.Errorf("images %s", out)
	}
	// A second interrupt gives up.
	p, err := n.Containerd.StartRecordTrace([]string{"--time", "600"}, n.Ref("fails:1"), n.Ref("fails:3"), "/bin/sh", "-c", "trap '' TERM; echo started; while :; do sleep 1; done")
	if err != nil {
		t.Fatal(err)
	}
	awaitLog(t, p, "started")
	for range 2 {
		if err := p.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond) // two signals at a time may arrive as one
	}
	if err := p.Await(t.Context()); err == nil {
		t.Error("two interrupts are no error")
	}
	n.nothingLeft(t)
}

// TestTraceCrash kills the daemon below a recording: that can't be gone on with, and
// is told when the daemon is back.
func TestTraceCrash(t *testing.T) {
	t.Parallel()
	n := ownNode(t, node.Options{})
	n.push(t, built(t, small), "crash:1")
	n.rpull(t, "crash:1")
	p, err := n.Containerd.StartRecordTrace([]string{"--time", "600"}, n.Ref("crash:1"), n.Ref("crash:2"), "/bin/sh", "-c", "echo started; sleep 1000")
	if err != nil {
		t.Fatal(err)
	}
	awaitLog(t, p, "started")
	if err := n.Snapshotter.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Snapshotter.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	err = p.Await(t.Context())
	if err == nil || !strings.Contains(err.Error(), "the snapshotter says:") {
		t.Errorf("the recording of a daemon that is gone: %v", err)
	}
	t.Log(err)
	n.nothingLeft(t)
	t.Log(n.record(t, nil, "crash:1", "crash:2"))
	n.removeLater(t, n.Ref("crash:2"))
}

// TestTraceReplaced records an image that has a trace.
func TestTraceReplaced(t *testing.T) {
	t.Parallel()
	n := ownNode(t, node.Options{})
	n.push(t, built(t, small), "replaced:1")
	n.rpull(t, "replaced:1")
	t.Log(n.record(t, nil, "replaced:1", "replaced:2", "/bin/cat", "/etc/layers"))
	n.removeLater(t, n.Ref("replaced:2"))
	t.Log(n.record(t, nil, "replaced:2", "replaced:3", "/bin/sh", "-c", sumScript))
	n.removeLater(t, n.Ref("replaced:3"))
	for _, name := range []string{"replaced:2", "replaced:3"} {
		n.pushTraced(t, name)
	}
	first, second := n.trace(t, "replaced:2"), n.trace(t, "replaced:3")
	if len(first.layers) != len(second.layers) {
		t.Errorf("%d layers, then %d", len(first.layers), len(second.layers))
	}
	if a, b := first.plan.Size(), second.plan.Size(); a >= b {
		t.Errorf("reading one file: %d bytes; all: %d", a, b)
	}
	first.records(t)
	second.records(t)
	out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", n.Ref("replaced:3"), "again")
	if err != nil || out != smallOutput {
		t.Errorf("printed %q, %v", out, err)
	}
	n.nothingLeft(t)
}

// TestTraceList puts a list in the place of a recording, with names that upstream
// does not take.
func TestTraceList(t *testing.T) {
	n := ownNode(t, node.Options{})
	text := strings.Repeat("a file to be read\n", 100_000)
	l := layered(t, image.Layered{Name: "list", Args: []string{"/bin/cat", "/opt/a b+c.txt"}, Steps: []image.Step{
		{Rootfs: image.Small()},
		{Write: image.OneFile("opt/a b+c.txt", text)},
	}})
	n.push(t, l, "originals/list:1")
	n.convert(t, "originals/list:1", "list:1")
	n.rpull(t, "list:1")
	list := filepath.Join(t.TempDir(), "list")
	paths := "/bin/busybox\n/opt/a b+c.txt\n"
	if err := os.WriteFile(list, []byte(paths), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Log(n.record(t, []string{"--priority_list", list}, "list:1", "list:2"))
	n.pushTraced(t, "list:2")
	got := n.trace(t, "list:2")
	if !bytes.Equal(got.slot, []byte(paths)) || got.plan.Size() == 0 {
		t.Errorf("the slot has %q, the plan %d bytes", got.slot, got.plan.Size())
	}
	n.forget(t)
	start, err := coldstart.Lazy(t.Context(), n.Node, "list:2")
	if err != nil || start.Stdout != text {
		t.Errorf("printed %d bytes, %v", len(start.Stdout), err)
	}
	t.Logf("%d requests, %d bytes", start.Stats.Requests, start.Stats.Bytes)
}

// TestTraceExt4 is the flow with an image that other tools made.
func TestTraceExt4(t *testing.T) {
	n := ownNode(t, node.Options{Config: coldstart.Frugal})
	n.push(t, built(t, numpy(image.Ext4)), "numpy:1")
	without, err := coldstart.Lazy(t.Context(), n.Node, "numpy:1")
	if err != nil {
		t.Fatal(err)
	}
	t.Log(n.record(t, nil, "numpy:1", "numpy:2"))
	n.pushTraced(t, "numpy:2")
	n.trace(t, "numpy:2").records(t)
	n.forget(t)
	with, err := coldstart.Lazy(t.Context(), n.Node, "numpy:2")
	if err != nil || with.Stdout != without.Stdout {
		t.Errorf("with a trace the container printed %q, %v; without %q", with.Stdout, err, without.Stdout)
	}
	if with.Stats.Requests*fewerWithoutData > without.Stats.Requests {
		t.Errorf("%d requests with a trace, %d without", with.Stats.Requests, without.Stats.Requests)
	}
	t.Logf("without: %d requests, %d bytes; with: %d requests, %d bytes",
		without.Stats.Requests, without.Stats.Bytes, with.Stats.Requests, with.Stats.Bytes)
}

// TestTraceDownloaded records an image whose layers are here as files: the trace is
// for nodes where they are not.
func TestTraceDownloaded(t *testing.T) {
	t.Parallel()
	n := ownNode(t, node.Options{})
	n.push(t, layered(t, image.Layered{Name: "downloaded", Args: small.Args, Steps: []image.Step{
		{Rootfs: image.Small()}, {Write: image.OneFile("etc/layers", "layer 1\nlayer 2\n")},
	}}), "originals/downloaded:1")
	n.convert(t, "originals/downloaded:1", "downloaded:1")
	n.rpull(t, "downloaded:1", "--download-blobs")
	t.Log(n.record(t, nil, "downloaded:1", "downloaded:2"))
	t.Log(n.pushTraced(t, "downloaded:2"))
	n.trace(t, "downloaded:2").records(t)
	n.forget(t)
	start, err := coldstart.Lazy(t.Context(), n.Node, "downloaded:2")
	if err != nil || start.Stdout != smallOutput {
		t.Errorf("printed %q, %v", start.Stdout, err)
	}
	t.Logf("%d requests", start.Stats.Requests)
}

// TestTraceNetwork records a container with an address of its own, from within a
// network namespace, so that the bridge is nowhere else.
func TestTraceNetwork(t *testing.T) {
	n := ownNode(t, node.Options{})
	plugins := n.Tools.Debian + "/usr/lib/cni"
	if _, err := os.Stat(plugins + "/bridge"); err != nil {
		t.Skip(err, ": make tools fetches it")
	}
	n.push(t, built(t, small), "network:1")
	n.rpull(t, "network:1")
	host, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	const show = "cat /proc/net/dev /proc/net/fib_trie; /bin/busybox readlink /proc/self/ns/net"
	for name, c := range map[string]struct {
		flags      string
		want, miss []string
	}{
		"loopback": {"--cni-plugin-dir /none", []string{"lo:", "127.0.0.1"}, []string{"10.99.0.", "eth0:", host}},
		"own":      {"--cni-plugin-dir " + plugins, []string{"lo:", "eth0:", "10.99.0."}, []string{"r-trace-br0", host}},
		"host":     {"--disable-network-isolation", []string{host}, nil},
	} {
		ref := n.Ref("network:" + name)
		command := fmt.Sprintf("%s --address %s --namespace %s record-trace --working-dir %s %s %s %s /bin/sh -c '%s' && echo after: && ip -o link",
			n.Path("bin/ctr"), n.Containerd.Address, n.Namespace, n.Path("traces"), c.flags, n.Ref("network:1"), ref, show)
		out, err := n.Run(t.Context(), "unshare", "--net", "sh", "-c", command)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		n.removeLater(t, ref)
		in, after, _ := strings.Cut(out, "after:")
		for _, want := range c.want {
			if !strings.Contains(in, want) {
				t.Errorf("%s: no %q in %s", name, want, in)
			}
		}
		for _, miss := range c.miss {
			if strings.Contains(in, miss) {
				t.Errorf("%s: %q in %s", name, miss, in)
			}
		}
		if strings.Contains(after, "r-trace") || strings.Contains(after, "veth") {
			t.Errorf("%s: links left: %s", name, after)
		}
	}
	n.nothingLeft(t)
	if _, err := os.Stat("/run/reprise-record-trace"); !os.IsNotExist(err) {
		t.Errorf("the addresses of the network are left: %v", err)
	}
}

// TestPushLazy pushes an image whose layers were never here: to another name at
// the same registry, where they are mounted, and to another registry, over a line
// that breaks.
func TestPushLazy(t *testing.T) {
	t.Parallel()
	n := ownNode(t, node.Options{})
	n.push(t, built(t, small), "lazy:1")
	ref := n.rpull(t, "lazy:1")
	other, err := n.StartRegistry(t.Context(), sandbox.RegistryConfig{Name: "other"})
	if err != nil {
		t.Fatal(err)
	}
	var reads atomic.Int64
	n.Proxy.SetRule(func(r *http.Request) wire.Fault {
		if r.Method == http.MethodGet && wire.Blob(r) != "" && reads.Add(1)%3 == 0 {
			return wire.Fault{CutAfter: 1000}
		}
		return wire.Fault{}
	})
	for to, want := range map[string]string{n.Ref("team/copy:1"): "mounted", other.Address + "/copy:1": "copied"} {
		out, err := n.Containerd.Push(t.Context(), to, ref)
		if err != nil || !strings.Contains(out, "3 "+want) {
			t.Errorf("pushing to %s: %q, %v; want 3 layers %s", to, out, err, want)
		}
		if _, err := n.Containerd.Rpull(t.Context(), to); err != nil {
			t.Fatal(err)
		}
		n.removeLater(t, to)
		if out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", to, "pushed"); err != nil || out != smallOutput {
			t.Errorf("%s printed %q, %v", to, out, err)
		}
	}
	if reads.Load() < 3 {
		t.Errorf("%d reads: none broke", reads.Load())
	}
}
