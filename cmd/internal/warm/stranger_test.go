package warm_test

import (
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestManyLayers: a manifest names more layers than an image can have, each as large
// as a blob can be. None of them is opened: the maps of what is there of them would
// take gigabytes.
func TestManyLayers(t *testing.T) {
	w := newWorld(t, nil)
	w.image()
	c, _ := w.contents()
	c.Plan, c.Data, c.DataSize = nil, nil, 0
	c.Slot = []byte("/etc/passwd\n")
	layers := []ocispec.Descriptor{w.trace(c)}
	for i := range 300 {
		layers = append(layers, ocispec.Descriptor{
			MediaType: layers[0].MediaType, Digest: digest.FromBytes([]byte{byte(i), byte(i >> 8)}), Size: 1 << 40,
		})
	}
	m := w.manifest(ocispec.Manifest{Layers: layers})
	w.get("manifests/"+m.Digest.String(), "")
	if s := w.settle(1); s.Invalid != 1 || w.fetches() != 0 {
		t.Errorf("came to %+v with %d fetches", s, w.fetches())
	}
}

// TestStrangersSize: a manifest names a blob of which something is there with another
// size. What is there stays.
func TestStrangersSize(t *testing.T) {
	w := newWorld(t, nil)
	w.image()
	c, _ := w.contents()
	c.Plan, c.Data, c.DataSize = nil, nil, 0
	c.Slot = []byte("/etc/passwd\n")
	victim := w.layers[0]
	w.get("blobs/"+victim.Digest.String(), "bytes=0-9999")
	wrong := victim
	wrong.Size++
	m := w.manifest(ocispec.Manifest{Layers: []ocispec.Descriptor{wrong, w.trace(c)}})
	w.get("manifests/"+m.Digest.String(), "")
	if s := w.settle(1); s.Invalid != 1 {
		t.Errorf("came to %+v", s)
	}
	before := w.fetches()
	w.get("blobs/"+victim.Digest.String(), "bytes=0-9999")
	if n := w.fetches() - before; n != 0 {
		t.Errorf("what was there was fetched again, by %d requests", n)
	}
}
