package e2e_test

import (
	"testing"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/interference"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/sandbox/wire"
)

// TestHangingRegistry lets the registry of one image hang with many reads
// outstanding: another image is read as if nothing was. How fast is for the
// benchmark to say; here the reads must come back at all.
func TestHangingRegistry(t *testing.T) {
	n := ownNode(t, node.Options{})
	n.push(t, built(t, numpy(image.Ext4)), "good:1")
	n.push(t, built(t, numpy(image.Erofs)), "bad:1")
	other, err := wire.Listen(n.Registry.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	good, bad := n.rpull(t, "good:1"), other.Address+"/bad:1"
	if _, err := n.Containerd.Rpull(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	n.removeLater(t, bad)
	r, err := interference.Measure(t.Context(), n.Node, good, bad, other, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("p99 of 4 KiB reads: %v alone, %v beside %d hanging reads: %.2f", r.Alone, r.Beside, r.Waiting, r.Ratio())
}
