package proxy_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestManifestOverLie: an upstream lies about a range of a blob that is a manifest
// too. The manifest that is pulled then is right, and does not make the bytes of the
// lie pass for verified: not even another upstream's clients would be spared them.
func TestManifestOverLie(t *testing.T) {
	liar, honest := newRegistry(t), newRegistry(t)
	text := []byte(`{"mediaType":"` + ociManifest + `","config":{},"annotations":{"a":"` + strings.Repeat("x", 300_000) + `"}}`)
	sum := digest.FromBytes(text)
	for _, g := range []*registry{liar, honest} {
		g.addBlob("a/b", text)
		g.addManifest("a/b", "v1", ociManifest, text)
	}
	r := newRig(t, liar, honest)
	r.cfg.MemoryBytes = -1
	r.start(t)
	get := func(path, rng string) []byte {
		req := r.request(t, http.MethodGet, path, "")
		if rng != "" {
			req.Header.Set("Range", rng)
		}
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Log(path, resp.StatusCode, err)
		}
		return body
	}
	liar.order(&fault{method: http.MethodGet, path: "/blobs/", count: 1, replace: bytes.ToUpper(text)})
	get("/v2/a/b/blobs/"+sum.String(), "bytes=1000-200999")
	if got := get("/v2/a/b/manifests/v1", ""); !bytes.Equal(got, text) {
		t.Error("the manifest is wrong")
	}
	other := "?ns=" + honest.host()
	if got := get("/v2/a/b/blobs/"+sum.String()+other, "bytes=1000-200999"); !bytes.Equal(got, text[1000:201000]) {
		t.Error("another upstream's client is served the lie")
	}
	for range 2 { // what was found wrong may cost one answer
		if got := get("/v2/a/b/blobs/"+sum.String(), ""); bytes.Equal(got, text) {
			return
		}
	}
	t.Error("the blob is not served")
}
