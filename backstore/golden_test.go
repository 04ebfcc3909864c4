package backstore_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/remote/blob"
)

// TestBaseLayer reads the base layer that overlaybd ships: garbage in header
// and trailer, no digests, maximum lengths.
func TestBaseLayer(t *testing.T) {
	dir := golden(t, "vectors/baselayer")
	var rep report
	readJSON(t, &rep, dir, "reader.json")
	checkChain(t, rep, func(file string) []byte {
		return readFile(t, dir, file)
	})
	layer, err := backstore.OpenLayer(t.Context(), memory(readFile(t, dir, "ext4_64")))
	if err != nil {
		t.Fatal(err)
	}
	_, want, _ := strings.Cut(string(readGzip(t, dir, "index.txt.gz")), "\n")
	if got := dump(layer.Segments(), 1); got != want {
		t.Error("index differs")
	}
}

// TestGoldenImages reads images made by overlaybd's tools: every prefix of
// their layers, and every layer alone.
func TestGoldenImages(t *testing.T) {
	dir := golden(t, "images")
	images := map[string]struct {
		DeviceSize     int64             `json:"device_size"`
		DeviceSHA256   string            `json:"device_sha256"`
		DeviceNZSHA256 string            `json:"device_nz_sha256"`
		MergedSegments int               `json:"merged_segments"`
		Prefixes       map[string]string `json:"prefix_device_sha256"`
		PerLayer       []struct {
			File   string `json:"file"`
			Size   int64  `json:"alone_size"`
			SHA256 string `json:"alone_sha256"`
		} `json:"per_layer"`
	}{}
	readJSON(t, &images, dir, "expected.json")
	for name, want := range images {
		t.Run(name, func(t *testing.T) {
			var blobs []blob.ReaderAt
			for i, l := range want.PerLayer {
				f, err := blob.OpenFile(filepath.Join(dir, name, "blobs", strings.Replace(l.File, ":", "/", 1)))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				blobs = append(blobs, f)
				checkAlone(t, f, device{Size: l.Size, SHA256: l.SHA256})
				image, err := backstore.Open(t.Context(), blobs)
				if err != nil {
					t.Fatal(err)
				}
				if i < len(want.PerLayer)-1 {
					prefix := []string{"layer 0 only", "layers 0+1"}[i]
					checkDevice(t, image, device{Size: want.DeviceSize, SHA256: want.Prefixes[prefix]})
					continue
				}
				checkDevice(t, image, device{Size: want.DeviceSize, SHA256: want.DeviceSHA256, NZSHA256: want.DeviceNZSHA256})
				if image.Len() != want.MergedSegments {
					t.Errorf("%d merged segments, want %d", image.Len(), want.MergedSegments)
				}
			}
		})
	}
}

// checkAlone opens a layer without those below. One without a virtual size
// can't be.
func checkAlone(t *testing.T, b blob.ReaderAt, want device) {
	t.Helper()
	alone, err := backstore.Open(t.Context(), []blob.ReaderAt{b})
	switch {
	case want.Size == 0 && err == nil:
		t.Error("stacked a layer without virtual size")
	case want.Size != 0 && err != nil:
		t.Error(err)
	case want.Size != 0:
		checkDevice(t, alone, want)
	}
}
