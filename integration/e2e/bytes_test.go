package e2e_test

import (
	"testing"

	"github.com/reprise-containers/reprise/integration/coldstart"
	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
)

// mostOfLeast is how much more than the least a cold start may fetch, indexes
// and jump tables and all.
const mostOfLeast = 1.25

// TestBytes compares what a cold start of a frugal node fetches with the compressed blocks that
// the same command touches on a plain loop device without readahead.
func TestBytes(t *testing.T) {
	for _, fs := range []image.FSType{image.Ext4, image.Erofs} {
		t.Run(string(fs), func(t *testing.T) {
			n := ownNode(t, node.Options{Config: coldstart.Frugal})
			b := numpy(fs)
			l := built(t, b)
			n.push(t, l, "numpy:1")
			start, err := coldstart.Lazy(t.Context(), n.Node, "numpy:1")
			if err != nil {
				t.Fatal(err)
			}
			least, cost, err := coldstart.Least(t.Context(), n.Node, l, b)
			if err != nil {
				t.Fatal(err)
			}
			if least.Stdout != start.Stdout {
				t.Errorf("the container printed %q, on a plain loop device %q", start.Stdout, least.Stdout)
			}
			ratio := float64(start.Stats.Bytes) / float64(cost.Compressed)
			t.Logf("fetched %d bytes in %d requests, least %d: %.3f", start.Stats.Bytes, start.Stats.Requests, cost.Compressed, ratio)
			if ratio > mostOfLeast {
				t.Errorf("fetched %.3f times the least, want at most %v", ratio, mostOfLeast)
			}
		})
	}
}
