package e2e_test

import (
	"testing"

	"github.com/reprise-containers/reprise/integration/image"
)

const (
	// mostOfChange is the largest blob in bytes of a layer that changes one
	// file.
	mostOfChange = 64 << 10
	// mostOfMany is how much larger the blobs of many layers may be than one
	// blob with the same files.
	mostOfMany = 1.1
)

// TestConvertSmallChanges converts layers that change one thing each, over a
// base of some ten thousand files.
func TestConvertSmallChanges(t *testing.T) {
	n := onNode(t)
	n.push(t, layered(t, image.Changes()), "originals/changes:1")
	layers := n.convert(t, "originals/changes:1", "converted/changes:1").Layers()
	changes := image.SmallChanges()
	if len(layers) != len(changes)+1 {
		t.Fatalf("the image has %d layers, want %d", len(layers), len(changes)+1)
	}
	for i, c := range changes {
		t.Logf("%6d bytes: %s", layers[i+1].Size, c.Name)
		if layers[i+1].Size > mostOfChange {
			t.Errorf("the layer in which %s has %d bytes, want at most %d", c.Name, layers[i+1].Size, mostOfChange)
		}
	}
}

// TestConvertManyLayers compares the blobs of an image of thirty layers with
// the blob of an image of one layer that has the same files.
func TestConvertManyLayers(t *testing.T) {
	n := onNode(t)
	size := map[string]int64{}
	for _, i := range []image.Layered{image.Thirty(), image.ThirtyInOne()} {
		n.push(t, layered(t, i), "originals/"+i.Name+":1")
		layers := n.convert(t, "originals/"+i.Name+":1", "converted/"+i.Name+":1").Layers()
		if len(layers) != len(i.Steps) {
			t.Fatalf("%s has %d layers, want %d", i.Name, len(layers), len(i.Steps))
		}
		for k, l := range layers {
			size[i.Name] += l.Size
			t.Logf("%s layer %d: %d bytes", i.Name, k, l.Size)
		}
	}
	many, one := size[image.Thirty().Name], size[image.ThirtyInOne().Name]
	ratio := float64(many) / float64(one)
	t.Logf("thirty layers: %d bytes, one: %d bytes, ratio %.3f", many, one, ratio)
	if ratio > mostOfMany {
		t.Errorf("thirty layers take %.3f times the bytes of one, want at most %v", ratio, mostOfMany)
	}
}
