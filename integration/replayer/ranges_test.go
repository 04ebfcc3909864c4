package replayer_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// layout is an OCI image layout with one image, in a folder.
type layout struct {
	dir      string
	media    string
	manifest []byte
	layers   []struct {
		Digest string `json:"digest"`
		Size   int64  `json:"size"`
	}
	config string
}

// golden opens one of the images of the original tools, beside the source tree.
func golden(t *testing.T, name string) layout {
	t.Helper()
	l := layout{dir: filepath.Join("../../../shared/golden/images", name)}
	text, err := os.ReadFile(filepath.Join(l.dir, "index.json"))
	if err != nil {
		t.Skip("no golden images beside the source tree: ", err)
	}
	var index struct {
		Manifests []struct {
			MediaType string `json:"mediaType"`
			Digest    string `json:"digest"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(text, &index); err != nil {
		t.Fatal(err)
	}
	l.media, l.manifest = index.Manifests[0].MediaType, l.blob(t, index.Manifests[0].Digest)
	var m struct {
		Config struct {
			Digest string `json:"digest"`
		} `json:"config"`
		Layers json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(l.manifest, &m); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(m.Layers, &l.layers); err != nil {
		t.Fatal(err)
	}
	l.config = m.Config.Digest
	return l
}

// blob returns the content of a blob, which lies in sha256/HEX or sha256:/HEX.
func (l layout) blob(t *testing.T, digest string) []byte {
	t.Helper()
	hex := strings.TrimPrefix(digest, "sha256:")
	for _, dir := range []string{"sha256", "sha256:"} {
		if text, err := os.ReadFile(filepath.Join(l.dir, "blobs", dir, hex)); err == nil {
			return text
		}
	}
	t.Fatalf("there is no blob %s in %s", digest, l.dir)
	return nil
}

// push puts the image into a registry.
func (l layout) push(t *testing.T, s *server, repository, tag string) {
	t.Helper()
	base := s.url() + "/v2/" + repository
	digests := []string{l.config}
	for _, x := range l.layers {
		digests = append(digests, x.Digest)
	}
	for _, d := range digests {
		at := send(t, http.MethodPost, base+"/blobs/uploads/", "", nil, http.StatusAccepted)
		between := "?"
		if strings.Contains(at, "?") {
			between = "&"
		}
		send(t, http.MethodPut, at+between+"digest="+d, "application/octet-stream", l.blob(t, d), http.StatusCreated)
	}
	send(t, http.MethodPut, base+"/manifests/"+tag, l.media, l.manifest, http.StatusCreated)
}

// send sends a request, which must get a certain answer, and returns its Location.
func send(t *testing.T, method, url, media string, body []byte, want int) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != want {
		text, _ := io.ReadAll(io.LimitReader(r.Body, 1<<10))
		t.Fatalf("%s %s: %s: %s", method, url, r.Status, text)
	}
	return r.Header.Get("Location")
}

// TestRanges makes a trace of the recorded start of an image that the original tools
// made, for three nodes, and replays it.
func TestRanges(t *testing.T) {
	t.Parallel()
	image := golden(t, "busybox-obd-trace")
	registry := startRegistry(t, "")
	image.push(t, registry, "golden/busybox", "traced")
	golden(t, "busybox-obd").push(t, registry, "golden/busybox", "plain")
	d := newDesk(t)
	const nodes = 3
	ref := registry.address + "/golden/busybox:"
	d.run(0, "ranges", "--nodes", fmt.Sprint(nodes), "--every", "100ms", "--over", "500ms", "-o", "start.jsonl.gz", ref+"traced")
	listed := d.run(0, "ranges", "--nodes", "1", "--over", "500ms", ref+"traced").out.String()

	sizes := map[string]int64{}
	for _, l := range image.layers[:len(image.layers)-1] { // the last one is the recording
		sizes["v2/golden/busybox/blobs/"+l.Digest] = l.Size
	}
	var one []record
	total := 0
	for line := range strings.Lines(listed) {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		one = append(one, r)
		total += int(r.Written)
	}
	if len(one) < 10 || one[0].URI != "v2/golden/busybox/manifests/traced" || one[0].Written != int64(len(image.manifest)) {
		t.Fatalf("%d records, the first of which is %+v", len(one), one[0])
	}
	for _, r := range one[1:] {
		var from, to int64
		_, err := fmt.Sscanf(r.Range, "bytes=%d-%d", &from, &to)
		if size, is := sizes[r.URI]; err != nil || !is || from > to || to >= size || r.Written != to-from+1 || r.Status != http.StatusPartialContent {
			t.Errorf("%+v is no range of a layer: %v", r, err)
		}
	}

	d.configure(values{
		"trace": values{"traces": []string{"start.jsonl.gz"}, "output": "results.json"}, "registry": []string{registry.address},
	})
	p := d.run(0, "run", "-i", "config.yaml")
	well, failed, sum := statistics(t, p.out.String())
	if well != nodes*len(one) || failed != 0 || sum != nodes*total {
		t.Errorf("%d went well, %d failed, %d bytes; want %d, 0, %d", well, failed, sum, nodes*len(one), nodes*total)
	}
	for _, r := range d.results("results.json") {
		if strings.Contains(r.URI, "/blobs/") && r.Status != http.StatusPartialContent {
			t.Errorf("%s was answered with %d", r.URI, r.Status)
		}
	}
	says(t, &d.run(1, "ranges", ref+"plain").errs, "trace")
	says(t, &d.run(1, "ranges", ref+"absent").errs, "absent")
}
