package proxy_test

import (
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCutFile: a verified blob's file was cut by somebody. The client that meets it
// is cut off, and the next one has the blob: the cache was told.
func TestCutFile(t *testing.T) {
	g := newRegistry(t)
	data := make([]byte, 400_000)
	for i := range data {
		data[i] = byte(i / 7)
	}
	sum := g.addBlob("a/b", data)
	r := newRig(t, g).start(t)
	path := "/v2/a/b/blobs/" + sum.String()
	if err := r.pull(r.request(t, http.MethodGet, path, ""), data, nil); err != nil {
		t.Fatal(err)
	}
	cut := 0
	err := filepath.WalkDir(r.dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(name, ".data") {
			cut++
			return os.Truncate(name, 100_000)
		}
		return err
	})
	if err != nil || cut != 1 {
		t.Fatal(cut, err)
	}
	resp, err := r.client.Do(r.request(t, http.MethodGet, path, ""))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Errorf("an answer of %d bytes passes for whole", n)
	}
	resp.Body.Close()
	if err := r.pull(r.request(t, http.MethodGet, path, ""), data, nil); err != nil {
		t.Error("the next client: ", err)
	}
}
