package files_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/convert"
	"github.com/reprise-containers/reprise/backstore/files/filestest"
	"github.com/reprise-containers/reprise/remote/blob"
)

// TestConverted finds files in an image of layers, as reprise convert makes them,
// of which the second changes directories and files of the first.
func TestConverted(t *testing.T) {
	first, second := map[string]string{}, map[string]string{}
	for n := range 900 {
		first[fmt.Sprintf("lib/name of some length %04d", n)] = fmt.Sprint("first ", n)
	}
	first["lib/gone"] = "gone"
	second["lib/name of some length 0450"] = strings.Repeat("second ", 10000)
	second["lib/new"] = "new"
	second["lib/.wh.gone"] = ""
	c, err := convert.NewChain(convert.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	layers := []blob.ReaderAt{add(t, c, first), add(t, c, second)}
	img, err := backstore.Open(t.Context(), layers)
	if err != nil {
		t.Fatal(err)
	}
	delete(second, "lib/.wh.gone")
	delete(first, "lib/name of some length 0450")
	for _, layer := range []map[string]string{first, second} {
		for name, want := range layer {
			if name == "lib/gone" {
				continue
			}
			if got := read(t, img, find(t, img, name)); string(got[:len(want)]) != want {
				t.Errorf("%s has %d other bytes", name, len(got))
			}
		}
	}
	checkTrace(t, layers, []string{"/lib/gone", "/lib/new", "/lib/"}, []string{"/lib/gone"})
}

// add converts a layer of files.
func add(t *testing.T, c *convert.Chain, contents map[string]string) blob.ReaderAt {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	var names []string
	for name := range contents {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(contents[name]))})
		if err == nil {
			_, err = w.Write([]byte(contents[name]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	id := convert.ID{ChainID: digest.FromBytes(archive.Bytes())}
	l, err := c.Add(t.Context(), &archive, id)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := os.Create(filepath.Join(t.TempDir(), "layer"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := l.Write(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	return filestest.Open(t, f.Name())
}
