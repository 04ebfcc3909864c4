package backstore_test

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/tracelayer"
)

// TestOpenRecorded makes the reads of the device that upstream's recorder was
// given, and compares what is recorded of the layers with what it recorded.
func TestOpenRecorded(t *testing.T) {
	dir := vectors + "/small-chain3"
	traceFile := readFile(t, "../tracelayer/testdata/vectors/small-chain3.trace")
	reads := string(readFile(t, dir, "trace.reads.txt"))
	for _, form := range []string{"lz4-4k.tar", "raw.lsmt", "lz4-16k-trailer.tar", "zstd-4k.zfile"} {
		t.Run(form, func(t *testing.T) {
			var blobs []blob.ReaderAt
			for i := range 3 {
				blobs = append(blobs, memory(readFile(t, dir, fmt.Sprintf("L%d.%s", i, form))))
			}
			checkRecorded(t, blobs, reads, traceFile)
		})
	}
}

// TestGoldenRecorded is TestOpenRecorded with an image that overlaybd's tools made
// and the reads that the kernel made of it.
func TestGoldenRecorded(t *testing.T) {
	dir := golden(t, "images")
	var index struct{ Manifests []struct{ Digest string } }
	var manifest struct{ Layers []struct{ Digest string } }
	path := func(d string) string {
		return filepath.Join(dir, "busybox-obd-trace", "blobs", strings.Replace(d, ":", "/", 1))
	}
	readJSON(t, &index, dir, "busybox-obd-trace", "index.json")
	readJSON(t, &manifest, path(index.Manifests[0].Digest))
	var blobs []blob.ReaderAt
	top := len(manifest.Layers) - 1
	for _, l := range manifest.Layers[:top] {
		blobs = append(blobs, memory(readFile(t, path(l.Digest))))
	}
	slot := readFile(t, path(manifest.Layers[top].Digest))[512:]
	size := 24 + 24*149
	checkRecorded(t, blobs, string(readFile(t, dir, "trace-layer.reads.txt")), slot[:size])
}

// checkRecorded makes reads, lines of offset and length, of the device and
// compares the parts of the layers that are recorded with those of a trace file.
// How these are cut into reads may differ: upstream reads one segment at a time,
// and an index in pieces of 4 KiB, which may have more in them than the index.
func checkRecorded(t *testing.T, blobs []blob.ReaderAt, reads string, traceFile []byte) {
	t.Helper()
	upstream, err := tracelayer.Decode(traceFile)
	if err != nil {
		t.Fatal(err)
	}
	r := tracelayer.NewRecorder(0)
	img, err := backstore.OpenRecorded(t.Context(), blobs, r)
	if err != nil {
		t.Fatal(err)
	}
	opening := r.Stats().Records
	if opening < 2*len(blobs) {
		t.Errorf("%d reads recorded of opening %d layers", opening, len(blobs))
	}
	for line := range strings.Lines(reads) {
		var off, n int64
		if _, err := fmt.Sscan(line, &off, &n); err != nil {
			t.Fatal(err)
		}
		if _, err := img.ReadAt(t.Context(), make([]byte, n), off); err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
	streams := img.Streams()
	got := r.Stop()
	for i := range blobs {
		// Opening by itself: to the end, where index and trailer are.
		from, to := int64(4096), streams[i].Size()-4096
		for _, rec := range got[:opening] {
			if int(rec.Layer) == i && rec.Off >= from {
				to = min(to, rec.Off)
			}
		}
		a, b := sectors(upstream, i, from, to), sectors(got, i, from, to)
		if !slices.Equal(a, b) {
			t.Errorf("layer %d: sectors %v are recorded, upstream's are %v", i, b, a)
		}
	}
}

// sectors returns which sectors of [from, to) of layer i a trace reads, in order.
func sectors(t tracelayer.Trace, i int, from, to int64) (all []int64) {
	for _, r := range t {
		for at := r.Off; at < r.Off+r.Count && int(r.Layer) == i; at += 512 {
			if at >= from && at < to {
				all = append(all, at/512)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
