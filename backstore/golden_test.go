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
	if testing.Short() {
		t.Skip("reads a device of 64 GiB")
	}
	checkChain(t, report{MergedSegments: rep.MergedSegments, Merged: rep.Merged, Layers: rep.Layers}, func(file string) []byte {
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
		Layers []struct {
			Digest string `json:"digest"`
		} `json:"layers"`
		DeviceSize     int64             `json:"device_size"`
		DeviceSHA256   string            `json:"device_sha256"`
		DeviceNZSHA256 string            `json:"device_nz_sha256"`
		MergedSegments int               `json:"merged_segments"`
		Prefixes       map[string]string `json:"prefix_device_sha256"`
		PerLayer       []struct {
			File   string `json:"file"`
			Bytes  int64  `json:"lsmt_bytes"`
			Segs   int    `json:"segments"`
			Size   int64  `json:"alone_size"`
			SHA256 string `json:"alone_sha256"`
		} `json:"per_layer"`
	}{}
	readJSON(t, &images, dir, "expected.json")
	for name, want := range images {
		t.Run(name, func(t *testing.T) {
			blobPath := func(digest string) string {
				return filepath.Join(dir, name, "blobs", strings.Replace(digest, ":", "/", 1))
			}
			var blobs []blob.ReaderAt
			prefix := "layer 0 only"
			for i, l := range want.PerLayer {
				f, err := blob.OpenFile(blobPath(l.File))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				blobs = append(blobs, f)
				alone, err := backstore.Open(t.Context(), blobs[i:])
				if l.Size == 0 { // a layer without a size needs those below
					if err == nil {
						t.Error("stacked a layer without virtual size")
					}
				} else if err != nil {
					t.Fatal(err)
				} else {
					checkDevice(t, alone, device{Size: l.Size, SHA256: l.SHA256})
				}
				image, err := backstore.Open(t.Context(), blobs)
				if err != nil {
					t.Fatal(err)
				}
				if i > 0 {
					prefix = "layers 0+" + strings.Join([]string{"1", "2"}[:i], "+")
				}
				if sum, ok := want.Prefixes[prefix]; ok {
					checkDevice(t, image, device{Size: want.DeviceSize, SHA256: sum})
				} else {
					t.Errorf("no expectation for prefix %q", prefix)
				}
				if i == len(want.PerLayer)-1 {
					checkDevice(t, image, device{Size: want.DeviceSize, SHA256: want.DeviceSHA256, NZSHA256: want.DeviceNZSHA256})
					if image.Len() != want.MergedSegments {
						t.Errorf("%d merged segments, want %d", image.Len(), want.MergedSegments)
					}
				}
			}
		})
	}
}
