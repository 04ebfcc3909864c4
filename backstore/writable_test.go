package backstore_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// TestWritable opens unsealed layers, whole and torn, and compares index and
// device with the reference reader's.
func TestWritable(t *testing.T) {
	want := readGzip(t, vectors, "writable/expected.raw.gz")
	for _, name := range []string{
		"append", "append-gc", "sparse",
		"index-header-only", "index-invalid-padded", "torn-index-8", "torn-index-entry", "torn-data-tail-junk",
	} {
		t.Run(name, func(t *testing.T) {
			l := openWritable(t, "writable/"+name)
			if l.Dropped() != 0 {
				t.Errorf("dropped %d records", l.Dropped())
			}
			_, index, _ := strings.Cut(string(readFile(t, vectors, "writable", name+".rw.index.txt")), "\n")
			if got := dump(l.Segments(), 1); got != index {
				t.Errorf("index:\n%swant\n%s", got, index)
			}
			var rep report
			readJSON(t, &rep, vectors, "writable/reader."+name+".json")
			image, err := lsmt.Stack([]*lsmt.Layer{l})
			if err != nil {
				t.Fatal(err)
			}
			checkDevice(t, image, *rep.UpperAlone)
			if name == "append" && !bytes.Equal(readAll(t, image), want) {
				t.Error("device differs from the one computed without a reader")
			}
		})
	}
}

// TestWritableOnChain stacks writable layers over committed ones.
func TestWritableOnChain(t *testing.T) {
	for _, name := range []string{"append", "sparse"} {
		t.Run(name, func(t *testing.T) {
			var layers []*lsmt.Layer
			for i := range 3 {
				l, err := backstore.OpenLayer(t.Context(), vector(t, fmt.Sprintf("small-chain3/L%d.raw.lsmt", i)))
				if err != nil {
					t.Fatal(err)
				}
				layers = append(layers, l)
			}
			layers = append(layers, openWritable(t, "writable/"+name))
			image, err := lsmt.Stack(layers)
			if err != nil {
				t.Fatal(err)
			}
			var rep report
			readJSON(t, &rep, vectors, "writable/reader."+name+".on-chain3.json")
			checkDevice(t, image, *rep.Merged)
		})
	}
}

// TestTornData opens a layer whose index log reached the disk before its data.
// Upstream refuses it; we take the log up to the first record without data,
// which leaves out the last write and the discard after it.
func TestTornData(t *testing.T) {
	torn, whole := openWritable(t, "writable/torn-data"), openWritable(t, "writable/append")
	if torn.Dropped() != 2 {
		t.Errorf("dropped %d records, want 2", torn.Dropped())
	}
	var want []string
	for s := range whole.Segments() {
		if s.Offset < 1600 {
			want = append(want, fmt.Sprint(s))
		}
	}
	var got []string
	for s := range torn.Segments() {
		got = append(got, fmt.Sprint(s))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("segments:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestStock opens what overlaybd-create makes.
func TestStock(t *testing.T) {
	for name, size := range map[string]int64{"stock": 1 << 30, "stock-sparse": 1 << 30, "stock-vsize0": 0} {
		l := openWritable(t, "writable/"+name)
		if l.Len() != 0 || l.Identity().VirtualSize != size {
			t.Errorf("%s: %d segments, virtual size %d", name, l.Len(), l.Identity().VirtualSize)
		}
	}
}

// TestWritableRefused: what is not a writable layer is an error that says why.
func TestWritableRefused(t *testing.T) {
	data, index := vector(t, "writable/append.data"), vector(t, "writable/append.index")
	for _, c := range []struct {
		name        string
		data, index memory
		want        string
	}{
		{"index as data", index.(memory), index.(memory), "not those of a data file"},
		{"data as index", data.(memory), data.(memory), "not those of an index file"},
		{"sealed data", memory(readFile(t, vectors, "writable/append.committed.lsmt")), index.(memory), "not those of a data file that is not sealed"},
		{"short data", data.(memory)[:4095], index.(memory), "less than a header"},
		{"short index", data.(memory), index.(memory)[:100], "less than a header"},
		{"other file", memory(make([]byte, 8192)), index.(memory), "wrong magic"},
		{"sparse without holes", memory(readFile(t, vectors, "writable/append.data")), nil, "can't tell where its holes are"},
	} {
		if c.name == "sparse without holes" {
			c.data = bytes.Clone(c.data)
			c.data[28] |= 1 << 4
		}
		if _, err := lsmt.OpenWritable(t.Context(), c.data, c.index); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := lsmt.OpenWritable(t.Context(), data, nil); err == nil {
		t.Error("append-only layer without an index was opened")
	}
	if _, err := lsmt.OpenFile(t.TempDir()); err == nil {
		t.Error("opened a directory")
	}
	if _, err := lsmt.OpenFile(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("opened nothing")
	}
}
