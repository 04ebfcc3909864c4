package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/sandbox/wire"
)

// pushConverted makes an ordinary image of what is in b, with two more layers,
// and converts it to name.
func (n machine) pushConverted(t *testing.T, b image.Build, name string) {
	t.Helper()
	l := layered(t, image.Layered{Name: "verify", Args: b.Args, Steps: []image.Step{
		{Rootfs: b.Rootfs},
		{Write: image.OneFile("etc/layers", "layer 2\n")},
		{Write: image.OneFile("var/changes/3", "layer 3\n")},
	}})
	n.push(t, l, "originals/"+name)
	n.convert(t, "originals/"+name, name)
}

// flipped inverts a byte of every nth answer with a part of a blob, each time
// another one, and counts how often it did. A registry that is wrong twice in a
// row is given up, so n must be above the number of reads at a time.
func flipped(nth int64, count *atomic.Int64) wire.Rule {
	var reads atomic.Int64
	return func(r *http.Request) wire.Fault {
		if wire.Blob(r) == "" || reads.Add(1)%nth != 0 {
			return wire.Fault{}
		}
		return wire.Fault{FlipAt: 1 + count.Add(1)*37%500}
	}
}

// TestVerify reads a whole converted image through a wire that damages what it
// carries, with chunk tables required. Everything that arrives in the end is right, and that
// it was not is counted.
func TestVerify(t *testing.T) {
	n := ownNode(t, node.Options{Config: map[string]string{"registry": "verify = \"required\"\n"}})
	b := faulty("verify")
	n.pushConverted(t, b, "verify:1")
	var flips atomic.Int64
	n.Proxy.SetRule(flipped(9, &flips))
	ref := n.rpull(t, "verify:1")
	out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", ref, "verify")
	if err != nil {
		t.Fatal(err)
	}
	compareTrees(t, unchanged(sorted(out)), unchanged(sums(t, rootfs(t, b.Rootfs))))
	failures, err := n.Snapshotter.Metric(t.Context(), `reprise_verify_failures_total{host="http://`+n.Proxy.Address+`"}`)
	if err != nil || failures == 0 || flips.Load() == 0 {
		t.Errorf("%v failures counted, %v; %d bytes were inverted", failures, err, flips.Load())
	}
	t.Logf("%d bytes inverted, %v pieces wrong", flips.Load(), failures)
}

// TestVerifyReferrers reads an image whose chunk tables `reprise attach-chunks` put
// beside it in the registry, through a wire that damages what it carries.
func TestVerifyReferrers(t *testing.T) {
	n := ownNode(t, node.Options{Config: map[string]string{"registry": "verify = \"required\"\nverify_referrers = true\n"}})
	b := faulty("referrers")
	b.Changes = 2
	n.push(t, built(t, b), "referrers:1")
	ref := n.rpull(t, "referrers:1")
	if _, err := n.Containerd.RunContainer(t.Context(), "overlaybd", ref, "refused"); err == nil || !strings.Contains(err.Error(), "attach-chunks") {
		t.Errorf("before there are tables: %v", err)
	}
	n.Snapshotter.Stop(t.Context()) // which remembers for a while that there were none
	if _, err := n.Run(t.Context(), n.Path("bin/reprise"), "attach-chunks", n.Registry.Address+"/referrers:1"); err != nil {
		t.Fatal(err)
	}
	if err := n.Snapshotter.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var flips atomic.Int64
	n.Proxy.SetRule(flipped(9, &flips))
	out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", ref, "verified")
	if err != nil {
		t.Fatal(err)
	}
	compareTrees(t, unchanged(sorted(out)), unchanged(sums(t, rootfs(t, b.Rootfs))))
	failures, err := n.Snapshotter.Metric(t.Context(), `reprise_verify_failures_total{host="http://`+n.Proxy.Address+`"}`)
	if err != nil || failures == 0 || flips.Load() == 0 {
		t.Errorf("%v failures counted, %v; %d bytes were inverted", failures, err, flips.Load())
	}
}

// TestVerifyRequired refuses an image without chunk tables and says what to do.
func TestVerifyRequired(t *testing.T) {
	n := ownNode(t, node.Options{Config: map[string]string{"registry": "verify = \"required\"\n"}})
	n.push(t, built(t, small), "small:1")
	ref := n.rpull(t, "small:1")
	_, err := n.Containerd.RunContainer(t.Context(), "overlaybd", ref, "refused")
	if err == nil {
		t.Fatal("an image without chunk tables runs")
	}
	for _, want := range []string{"sha256:", n.Proxy.Address, "no chunk table", "reprise convert"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	n.Snapshotter.Stop(t.Context())
	off := map[string]string{"registry": "verify = \"required\"\n[registry.hosts.\"" + n.Proxy.Address + "\"]\nverify = \"when-possible\"\n"}
	if err := n.Snapshotter.Reconfigure(t.Context(), off); err != nil {
		t.Fatal(err)
	}
	if out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", ref, "allowed"); err != nil || out != smallOutput {
		t.Errorf("with another setting for its host the container printed %q, %v", out, err)
	}
}

// TestDownloadMismatch downloads an image without chunk tables from a wire that
// damages one byte where no checksum of the formats looks: the file is not used,
// and the image stays as it is.
func TestDownloadMismatch(t *testing.T) {
	n := ownNode(t, node.Options{Config: eager})
	b := faulty("mismatch")
	l := built(t, b)
	n.push(t, l, "mismatch:1")
	_, m, err := l.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	size := m.Layers[0].Size
	// The last bytes are the zeros that end the archive.
	last := func(r *http.Request) wire.Fault {
		if wire.Blob(r) == "" || !strings.HasSuffix(r.Header.Get("Range"), fmt.Sprint("-", size-1)) {
			return wire.Fault{}
		}
		var from int64
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err != nil {
			return wire.Fault{Status: http.StatusBadRequest}
		}
		return wire.Fault{FlipAt: size - 1 - from}
	}
	n.Proxy.SetRule(last)
	ref := n.rpull(t, "mismatch:1")
	if err := n.Containerd.Detach(t.Context(), ref, "sleeper", "/bin/sleep", "100000"); err != nil {
		t.Fatal(err)
	}
	n.awaitMetric(t, "reprise_download_mismatches_total", 1)
	if done, err := n.Snapshotter.Metric(t.Context(), "reprise_download_layers_total"); err != nil || done > 0 {
		t.Errorf("%v layers downloaded, %v", done, err)
	}
	out, err := n.Containerd.Exec(t.Context(), "sleeper", "/bin/sh", "-c", sumScript)
	if err != nil {
		t.Fatal(err)
	}
	compareTrees(t, sorted(out), sums(t, rootfs(t, b.Rootfs)))
	n.ctr(t, "task", "kill", "--signal", "KILL", "sleeper")
	n.ctr(t, "task", "rm", "--force", "sleeper")
	n.ctr(t, "container", "rm", "sleeper")
}
