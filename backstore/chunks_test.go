package backstore_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/tarblob"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
)

// checkTable checks a chunk table by the words of docs/chunks.md, against the
// bytes it covers, and returns where leaves end.
func checkTable(t *testing.T, table []byte, root digest.Digest, covered []byte) (ends []int64) {
	t.Helper()
	le := binary.LittleEndian
	if string(table[:16]) != "overlaybd.chunks" || le.Uint16(table[16:]) != 1 || table[18] != 1 || table[19] != 0 {
		t.Fatalf("header starts with %x", table[:20])
	}
	fanOut, leaves := int(le.Uint32(table[20:])), int(le.Uint64(table[32:]))
	if got := le.Uint64(table[24:]); got != uint64(len(covered)) {
		t.Fatalf("table covers %d bytes of %d", got, len(covered))
	}
	pages := (leaves + fanOut - 1) / fanOut
	at := 40 + 36*pages
	if len(table) != at+34*leaves {
		t.Fatalf("table of %d leaves in %d pages has %d bytes", leaves, pages, len(table))
	}
	if got := digest.FromBytes(table[:at]); got != root {
		t.Errorf("root is %s, header and index hash to %s", root, got)
	}
	off := int64(0)
	for i := range pages {
		entry := table[40+36*i:]
		page := table[at : at+34*min(fanOut, leaves-i*fanOut)]
		at += len(page)
		if s := sha256.Sum256(page); !bytes.Equal(s[:], entry[4:36]) {
			t.Errorf("page %d does not have the hash in the index", i)
		}
		start := off
		for ; len(page) > 0; page = page[34:] {
			n := int64(le.Uint16(page)) + 1
			if s := sha256.Sum256(covered[off : off+n]); !bytes.Equal(s[:], page[2:34]) {
				t.Fatalf("leaf of %d bytes at %d has another hash", n, off)
			}
			off += n
			ends = append(ends, off)
		}
		if got := int64(le.Uint32(entry)); got != off-start {
			t.Errorf("page %d covers %d bytes, index says %d", i, off-start, got)
		}
	}
	if off != int64(len(covered)) {
		t.Errorf("leaves end at %d of %d", off, len(covered))
	}
	return ends
}

// blobFile returns a file with the given contents.
func blobFile(t testing.TB, data []byte) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "blob"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	return f
}

// withChunks returns a layer blob with its chunk table appended.
func withChunks(t testing.TB, data []byte) ([]byte, chunks.Ref) {
	t.Helper()
	f := blobFile(t, data)
	ref, sum, size, err := backstore.AppendChunks(t.Context(), f, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	out := readFile(t, f.Name())
	if int64(len(out)) != size || digest.FromBytes(out) != sum {
		t.Fatalf("blob of %d bytes is %s, was told %d and %s", len(out), digest.FromBytes(out), size, sum)
	}
	if err := ref.Validate(size); err != nil {
		t.Fatal(err)
	}
	return out, ref
}

var layerArchives = []string{
	"small-chain3/L0.lz4-4k.tar",
	"small-chain3/L0.lz4-4k.registry.tar",
	"small-chain3/L0.zstd-64k.tar",
	"small-chain3/L0.lz4-16k-trailer.tar",
	"small-chain3/L1.lz4-4k.tar",
	"edge/seg256.lz4-4k.tar",
	"corrupt/tar-plain-ustar.tar",
}

func TestAppendChunks(t *testing.T) {
	for _, name := range layerArchives {
		data := readFile(t, vectors, name)
		out, ref := withChunks(t, data)
		covered := out[:ref.Covered(int64(len(out)))]
		if !bytes.Equal(covered, data[:len(covered)]) {
			t.Fatalf("%s: the bytes before the table changed", name)
		}
		ends := checkTable(t, out[ref.Offset:ref.Offset+ref.Size], ref.Root, covered)
		checkLeaves(t, data, ends)

		again, _ := withChunks(t, data)
		if !bytes.Equal(again, out) {
			t.Errorf("%s: a second time the blob is another one", name)
		}
		layer, err := backstore.OpenLayer(t.Context(), memory(out))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want, err := backstore.OpenLayer(t.Context(), memory(data)); err != nil || want.Size() != layer.Size() {
			t.Errorf("%s: the layer is another one: %v", name, err)
		}
	}
}

// checkLeaves checks that each ZFile block is a leaf.
func checkLeaves(t *testing.T, data []byte, ends []int64) {
	t.Helper()
	d, err := backstore.Describe(t.Context(), memory(data))
	if err != nil {
		t.Fatal(err)
	}
	for i := range d.ZFile.Blocks() {
		start, n := d.ZFile.BlockExtent(i)
		start += d.Payload.Offset
		before, _ := slices.BinarySearch(ends, start)
		if end := start + n; ends[before] != start || ends[before+1] != end {
			t.Errorf("block %d lies at %d to %d, leaves end at %d and %d", i, start, end, ends[before], ends[before+1])
		}
	}
}

// TestChunksMember reads the archive as others do.
func TestChunksMember(t *testing.T) {
	out, ref := withChunks(t, readFile(t, vectors, "small-chain3/L1.lz4-4k.tar"))
	r := tar.NewReader(bytes.NewReader(out))
	first, err := r.Next()
	if err != nil || first.Name != "overlaybd.commit" {
		t.Fatalf("first member %+v, %v", first, err)
	}
	second, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if second.Name != "overlaybd.chunks" || second.Mode != 0o444 || second.Uid != 0 || second.Gid != 0 ||
		second.ModTime.Unix() != 0 || second.Size != ref.Size || second.Format != tar.FormatUSTAR {
		t.Errorf("second member %+v", second)
	}
	table, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(table, out[ref.Offset:ref.Offset+ref.Size]) {
		t.Errorf("the second member is not the table: %v", err)
	}
	if _, err := r.Next(); err != io.EOF || len(out)%512 != 0 {
		t.Errorf("the archive of %d bytes does not end: %v", len(out), err)
	}
	at, _, err := tarblob.Locate(out[:tarblob.HeadSize], int64(len(out)))
	if err != nil {
		t.Fatal(err)
	}
	m, ok, err := tarblob.NextMember(t.Context(), memory(out), at)
	if err != nil || !ok || m.Name != backstore.ChunksMember || m.Offset != ref.Offset || m.Size != ref.Size {
		t.Errorf("next member %+v, %v, %v", m, ok, err)
	}
	if _, ok, err := tarblob.NextMember(t.Context(), memory(out), m.Range); ok || err != nil {
		t.Errorf("a third member: %v, %v", ok, err)
	}
}

func TestAppendChunksRefuses(t *testing.T) {
	whole := readFile(t, vectors, "small-chain3/L1.lz4-4k.tar")
	twice, _ := withChunks(t, whole)
	for want, data := range map[string][]byte{
		"more than one member": twice,
		"no tar archive":       readFile(t, vectors, "small-chain3/L1.lz4-4k.zfile"),
		"ends after the blob":  whole[:len(whole)/2],
	} {
		f := blobFile(t, data)
		_, _, _, err := backstore.AppendChunks(t.Context(), f, int64(len(data)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
		if !bytes.Equal(readFile(t, f.Name()), data) {
			t.Errorf("%s: the file changed", want)
		}
	}
}

var errDisk = errors.New("disk full on purpose")

// full is a target that can not grow.
type full struct{ *os.File }

func (f full) WriteAt(p []byte, off int64) (int, error) { return 0, errDisk }

func TestAppendChunksFullDisk(t *testing.T) {
	data := readFile(t, vectors, "small-chain3/L1.lz4-4k.tar")
	if _, _, _, err := backstore.AppendChunks(t.Context(), full{blobFile(t, data)}, int64(len(data))); !errors.Is(err, errDisk) {
		t.Errorf("error %v", err)
	}
}

// TestBuildChunks makes detached tables, which cover all of the blob.
func TestBuildChunks(t *testing.T) {
	for _, name := range append([]string{
		"small-chain3/L0.lz4-4k.zfile", "small-chain3/L1.lz4-4k-trailer.zfile", "small-chain3/L0.raw.lsmt",
		"edge/seg256.raw.lsmt",
	}, layerArchives...) {
		data := readFile(t, vectors, name)
		table, root, sum, err := backstore.BuildChunks(t.Context(), memory(data))
		if err != nil {
			t.Fatal(err)
		}
		if sum != digest.FromBytes(data) {
			t.Errorf("%s: digest %s", name, sum)
		}
		ends := checkTable(t, table, root, data)
		if strings.HasSuffix(name, ".lsmt") && ends[0] != 4096 {
			t.Errorf("%s: first leaf ends at %d", name, ends[0])
		}
	}
}

// TestAppendToWritten appends to what WriteLayer wrote, of several MB.
func TestAppendToWritten(t *testing.T) {
	disk := make([]byte, 6<<20)
	for i := range disk {
		disk[i] = byte(i * i >> 11)
	}
	var layer target
	err := backstore.WriteLayer(&layer, zfile.Options{}, func(w io.Writer) error {
		return lsmt.CommitDisk(t.Context(), w, memory(disk), lsmt.DiskOptions{KeepZeros: true})
	})
	if err != nil {
		t.Fatal(err)
	}
	out, ref := withChunks(t, layer.Bytes())
	checkTable(t, out[ref.Offset:ref.Offset+ref.Size], ref.Root, out[:ref.Offset-512])
	image, err := backstore.Open(t.Context(), []blob.ReaderAt{memory(out)})
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, image); !bytes.Equal(got, disk) {
		t.Error("the device is another one")
	}
}
