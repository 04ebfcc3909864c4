package image_test

import (
	"os"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/integration/image"
)

// TestLayeredIsReproducible builds images twice and compares the digests of all
// layers.
func TestLayeredIsReproducible(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("unpacking packages sets owners: run as root")
	}
	for _, i := range []image.Layered{image.Middle(), image.Odd()} {
		t.Run(i.Name, func(t *testing.T) {
			cache := t.TempDir()
			first, again := layerDigests(t, i, cache), layerDigests(t, i, cache)
			if !slices.Equal(first, again) {
				t.Errorf("the layers are\n%v and the second time\n%v", first, again)
			}
		})
	}
}

func layerDigests(t *testing.T, i image.Layered, cache string) []digest.Digest {
	t.Helper()
	l, err := i.Make(t.Context(), cache, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(l.Dir) // so that the next one is made anew
	_, m, err := l.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	var out []digest.Digest
	for _, d := range m.Layers {
		t.Logf("%s %s %d", d.MediaType, d.Digest, d.Size)
		out = append(out, d.Digest)
	}
	return out
}
