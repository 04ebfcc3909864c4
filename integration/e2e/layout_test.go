package e2e_test

import (
	"testing"

	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/integration/coldstart"
	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
)

// mostOfExt4 is how much more than of ext4 a start may ask for of a converted
// image.
const mostOfExt4 = 1.1

// TestConvertedBytes compares what starts read of converted images with what
// they read of ext4 on a plain loop device, where nothing reads ahead.
func TestConvertedBytes(t *testing.T) {
	n := ownNode(t, node.Options{Config: coldstart.WithoutReadahead})
	for _, start := range image.Starts() {
		t.Run(start.Name, func(t *testing.T) {
			b := start.Build(image.Overlaybd{FSType: image.Ext4, Compression: zfile.Options{Algorithm: zfile.ZSTD}})
			_, ext4, err := coldstart.Least(t.Context(), n.Node, built(t, b), b)
			if err != nil {
				t.Fatal(err)
			}
			l, err := coldstart.Convert(t.Context(), n.Node, layered(t, start.Layered()).Dir, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			b.Format.FSType = image.Erofs
			r, err := coldstart.Request(t.Context(), n.Node, l, b, start.Name+":converted")
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range []struct {
				what       string
				ours, ext4 int64
			}{
				{"bytes read from the device", r.Device, ext4.Touched},
				{"compressed bytes read on a plain loop device", r.Compressed, ext4.Compressed},
			} {
				ratio := float64(x.ours) / float64(x.ext4)
				t.Logf("%s: %d, with ext4 %d: %.3f", x.what, x.ours, x.ext4, ratio)
				if x.ours <= 0 || ratio > mostOfExt4 {
					t.Errorf("%s: %.3f of ext4, want at most %v", x.what, ratio, mostOfExt4)
				}
			}
		})
	}
}
