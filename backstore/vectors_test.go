package backstore_test

import (
	"bytes"
	"fmt"
	"iter"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
)

// report is a reference reader's report about a chain of layers.
type report struct {
	Layers []struct {
		File     string `json:"file"`
		Bytes    int64  `json:"lsmt_bytes"`
		Segments int    `json:"segments"`
		Single   device `json:"single"`
	} `json:"layers"`
	MergedSegments *int    `json:"merged_segments"`
	Merged         *device `json:"merged"`
	UpperAlone     *device `json:"upper_alone"`
}

// TestChains opens every chain of intact vectors and compares the device, the
// layers alone, and the numbers of segments.
func TestChains(t *testing.T) {
	reports, err := filepath.Glob(vectors + "/*/*reader.*.json")
	if err != nil || len(reports) == 0 {
		t.Fatal("no reports", err)
	}
	chains := 0
	for _, path := range reports {
		var rep report
		readJSON(t, &rep, path)
		if rep.MergedSegments == nil || rep.Merged == nil {
			continue // writable layers have a test of their own
		}
		chains++
		t.Run(strings.TrimPrefix(path, vectors+"/"), func(t *testing.T) {
			checkChain(t, rep, func(file string) []byte {
				return readFile(t, filepath.Dir(path), file)
			})
		})
	}
	if want := 22; chains != want {
		t.Errorf("%d chains, want %d", chains, want)
	}
}

func checkChain(t *testing.T, rep report, load func(file string) []byte) {
	t.Helper()
	var blobs []blob.ReaderAt
	for i, l := range rep.Layers {
		b := memory(load(l.File))
		blobs = append(blobs, b)
		layer, err := backstore.OpenLayer(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if layer.Len() != l.Segments || layer.Size() != l.Bytes {
			t.Errorf("layer %d has %d segments in %d bytes, want %d in %d", i, layer.Len(), layer.Size(), l.Segments, l.Bytes)
		}
		alone, err := backstore.Open(t.Context(), blobs[i:])
		if err != nil {
			t.Fatal(err)
		}
		checkDevice(t, alone, l.Single)
	}
	image, err := backstore.Open(t.Context(), blobs)
	if err != nil {
		t.Fatal(err)
	}
	if image.Len() != *rep.MergedSegments {
		t.Errorf("%d merged segments, want %d", image.Len(), *rep.MergedSegments)
	}
	checkDevice(t, image, *rep.Merged)
	if !image.Local() {
		t.Error("an image in memory is not local")
	}
}

// dump formats segments as the reference reader does; its tags count layers
// from the top.
func dump(segments iter.Seq[lsmt.Segment], layers int) string {
	var b strings.Builder
	for s := range segments {
		zeroed := 0
		if s.Zeroed {
			zeroed = 1
		}
		fmt.Fprintf(&b, "%d %d %d %d %d\n", s.Offset, s.Length, s.Mapped, zeroed, layers-1-s.Layer)
	}
	return b.String()
}

// TestSmallChainDevice compares the device with bytes that were computed
// without any reader.
func TestSmallChainDevice(t *testing.T) {
	want := readGzip(t, vectors, "small-chain3/expected.raw.gz")
	var blobs []blob.ReaderAt
	for i := range 3 {
		blobs = append(blobs, memory(readFile(t, vectors, "small-chain3", fmt.Sprintf("L%d.lz4-4k.tar", i))))
	}
	image, err := backstore.Open(t.Context(), blobs)
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, image); !bytes.Equal(got, want) {
		t.Error("device differs")
	}
}

// TestIndexDumps compares decoded indexes, of layers and of the chain.
func TestIndexDumps(t *testing.T) {
	dumps, err := filepath.Glob(vectors + "/edge/*.index.txt")
	if err != nil {
		t.Fatal(err)
	}
	committed, _ := filepath.Glob(vectors + "/writable/*.committed.index.txt")
	dumps = append(append(dumps, committed...), vectors+"/small-chain3/index.raw.lsmt.txt")
	for _, path := range dumps {
		t.Run(strings.TrimPrefix(path, vectors+"/"), func(t *testing.T) {
			checkDumps(t, filepath.Dir(path), string(readFile(t, path)))
		})
	}
}

// checkDumps checks a file of dumps, each "# name: ..." and its lines.
func checkDumps(t *testing.T, dir, text string) {
	t.Helper()
	var layers []blob.ReaderAt
	for section := range strings.SplitSeq(strings.TrimPrefix(text, "# "), "\n# ") {
		title, want, _ := strings.Cut(section, "\n")
		name, _, _ := strings.Cut(title, ":")
		name, _, _ = strings.Cut(name, " ")
		want = strings.TrimRight(want, "\n") + "\n"
		if name == "merged" {
			image, err := backstore.Open(t.Context(), layers)
			if err != nil {
				t.Fatal(err)
			}
			if got := dump(image.Segments(), len(layers)); got != want {
				t.Errorf("merged:\n%swant\n%s", got, want)
			}
			continue
		}
		b := memory(readFile(t, dir, name))
		layers = append(layers, b)
		l, err := backstore.OpenLayer(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if got := dump(l.Segments(), 1); got != strings.TrimLeft(want, "\n") {
			t.Errorf("%s:\n%swant\n%s", name, got, want)
		}
	}
}
