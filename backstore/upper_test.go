package backstore_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
)

// upperVector copies a writable layer of the vectors to where it can be
// written, holes and all.
func upperVector(t *testing.T, name string) lsmt.UpperFiles {
	t.Helper()
	dir := t.TempDir()
	files := lsmt.UpperFiles{Data: filepath.Join(dir, "data"), Index: filepath.Join(dir, "index")}
	if base, ok := strings.CutPrefix(name, "writable/"); ok && strings.Contains(base, "sparse") {
		files.Data = sparseVector(t, base+".data").String()
	} else if err := os.WriteFile(files.Data, readFile(t, vectors, name+".data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files.Index, readFile(t, vectors, name+".index"), 0o600); err != nil {
		t.Fatal(err)
	}
	return files
}

func openUpper(t *testing.T, files lsmt.UpperFiles, lower blob.ReaderAt) *lsmt.Upper {
	t.Helper()
	u, err := lsmt.OpenUpper(t.Context(), files, lower)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

// TestUpperVectors opens the writable layers that overlaybd made, whole and
// torn, reads, commits and seals them, and leaves their files alone otherwise.
func TestUpperVectors(t *testing.T) {
	for name, uuid := range map[string]string{
		"append": "00000000-1111-4222-8333-000000000180", "append-gc": "", "sparse": "",
		"index-header-only": "", "index-invalid-padded": "", "torn-index-8": "", "torn-index-entry": "", "torn-data-tail-junk": "",
	} {
		t.Run(name, func(t *testing.T) {
			files := upperVector(t, "writable/"+name)
			before := readFile(t, files.Data)
			u := openUpper(t, files, nil)
			var rep report
			readJSON(t, &rep, vectors, "writable/reader."+name+".json")
			checkDevice(t, u, *rep.UpperAlone)
			want := "writable/" + name + ".committed.lsmt"
			if _, err := os.Stat(filepath.Join(vectors, want)); err == nil {
				l, release, err := u.Snapshot(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				checkCommit(t, l, lsmt.Identity{UUID: uuid}, want)
				release()
			}
			if err := u.Close(); err != nil {
				t.Fatal(err)
			}
			// What the index does not refer to is cut off.
			if after := readFile(t, files.Data); !bytes.HasPrefix(before, after) || name != "index-header-only" && len(after) < len(before)-300 {
				t.Errorf("data file of %d bytes has %d, or others", len(before), len(after))
			}
			if err := lsmt.SealUpper(t.Context(), files, 0); err != nil {
				t.Fatal(err)
			}
			sealed, err := backstore.OpenLayer(t.Context(), memory(readFile(t, files.Data)))
			if err != nil {
				t.Fatal(err)
			}
			image, err := lsmt.Stack([]*lsmt.Layer{sealed})
			if err != nil {
				t.Fatal(err)
			}
			checkDevice(t, image, *rep.UpperAlone)
		})
	}
}

// TestUpperOnChain opens the writable layers on top of committed ones.
func TestUpperOnChain(t *testing.T) {
	for _, name := range []string{"append", "sparse"} {
		t.Run(name, func(t *testing.T) {
			var lowers []blob.ReaderAt
			for i := range 3 {
				lowers = append(lowers, vector(t, fmt.Sprintf("small-chain3/L%d.lz4-4k.tar", i)))
			}
			lower, err := backstore.Open(t.Context(), lowers)
			if err != nil {
				t.Fatal(err)
			}
			var rep report
			readJSON(t, &rep, vectors, "writable/reader."+name+".on-chain3.json")
			checkDevice(t, openUpper(t, upperVector(t, "writable/"+name), lower), *rep.Merged)
		})
	}
}

// TestUpperTornData: upstream refuses this layer. It opens without the records
// whose data is lost, and writing goes on where the data ends.
func TestUpperTornData(t *testing.T) {
	files := upperVector(t, "writable/torn-data")
	u := openUpper(t, files, nil)
	if s := u.Stats(); s.Dropped != 2 {
		t.Errorf("%+v", s)
	}
	before := readAll(t, u)
	p := bytes.Repeat([]byte{0xA5}, 4096)
	if _, err := u.WriteAt(t.Context(), p, 512); err != nil {
		t.Fatal(err)
	}
	copy(before[512:], p)
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, openUpper(t, files, nil)); !bytes.Equal(got, before) {
		t.Error("reopened layer differs")
	}
}

// TestUpperSealedVector seals what overlaybd sealed, too: the same records.
func TestUpperSealedVector(t *testing.T) {
	files := upperVector(t, "edge/sealed")
	if err := lsmt.SealUpper(t.Context(), files, 0); err != nil {
		t.Fatal(err)
	}
	got, want := readFile(t, files.Data), readFile(t, vectors, "edge/sealed.sealed.lsmt")
	a, err := backstore.OpenLayer(t.Context(), memory(got))
	if err != nil {
		t.Fatal(err)
	}
	b, err := backstore.OpenLayer(t.Context(), memory(want))
	if err != nil {
		t.Fatal(err)
	}
	if dump(a.Segments(), 1) != dump(b.Segments(), 1) || len(got) != len(want) || !bytes.Equal(got[:33280], want[:33280]) {
		t.Errorf("sealed layer of %d bytes:\n%s, overlaybd's of %d:\n%s", len(got), dump(a.Segments(), 1), len(want), dump(b.Segments(), 1))
	}
	// Overlaybd forgets the user tag, which starts at 134.
	if trailer := len(got) - 4096; !bytes.Equal(got[trailer:trailer+134], want[trailer:trailer+134]) {
		t.Error("trailers differ")
	}
}

// TestUpperStock writes to what overlaybd-create makes.
func TestUpperStock(t *testing.T) {
	for _, name := range []string{"stock", "stock-sparse", "stock-vsize0"} {
		t.Run(name, func(t *testing.T) {
			files := upperVector(t, "writable/"+name)
			below := memory(make([]byte, 1<<30))
			u := openUpper(t, files, below)
			if u.Size() != 1<<30 {
				t.Fatalf("size %d", u.Size())
			}
			p := bytes.Repeat([]byte{0xA5}, 512)
			if _, err := u.WriteAt(t.Context(), p, 1<<20); err != nil {
				t.Fatal(err)
			}
			if err := u.Close(); err != nil {
				t.Fatal(err)
			}
			u = openUpper(t, files, nil)
			got := make([]byte, 512)
			if _, err := u.ReadAt(t.Context(), got, 1<<20); err != nil || !bytes.Equal(got, p) || u.Size() != 1<<30 {
				t.Errorf("size %d, %v, or other bytes", u.Size(), err)
			}
		})
	}
}
