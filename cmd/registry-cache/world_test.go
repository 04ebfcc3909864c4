package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// origin is an upstream registry with one image, that is told from a real one by
// nothing that a pull asks for.
type origin struct {
	host     string
	layer    ocispec.Descriptor
	config   ocispec.Descriptor
	manifest ocispec.Descriptor

	mu      sync.Mutex
	content map[string][]byte
	tags    map[string]digest.Digest
	gets    map[string]int // by last element of the path
	gate    chan struct{}  // if not nil, bodies of blobs wait for it
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	o := &origin{content: map[string][]byte{}, tags: map[string]digest.Digest{}, gets: map[string]int{}}
	s := httptest.NewServer(o)
	t.Cleanup(s.Close)
	o.host = strings.TrimPrefix(s.URL, "http://")
	layer := make([]byte, 3<<20)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(layer)
	o.layer = o.put("application/vnd.oci.image.layer.v1.tar", layer)
	o.config = o.put(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`))
	text, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: o.config, Layers: []ocispec.Descriptor{o.layer},
	})
	if err != nil {
		t.Fatal(err)
	}
	o.manifest = o.put(ocispec.MediaTypeImageManifest, text)
	o.tags["v1"] = o.manifest.Digest
	return o
}

func (o *origin) put(mediaType string, content []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	o.content[d.Digest.String()] = content
	return d
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := path.Base(r.URL.Path)
	o.mu.Lock()
	if d, ok := o.tags[name]; ok {
		name = d.String()
	}
	content, ok := o.content[name]
	gate := o.gate
	if r.Method == http.MethodGet {
		o.gets[name]++
	}
	o.mu.Unlock()
	switch {
	case r.URL.Path == "/v2/":
		_, _ = io.WriteString(w, "{}")
		return
	case !ok:
		http.NotFound(w, r)
		return
	case strings.Contains(r.URL.Path, "/manifests/"):
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
	case r.Method == http.MethodGet && gate != nil:
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(content[:len(content)/2])
		_ = http.NewResponseController(w).Flush()
		<-gate
		_, _ = w.Write(content[len(content)/2:])
		return
	}
	w.Header().Set("Docker-Content-Digest", name)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

func (o *origin) got(d digest.Digest) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.gets[d.String()]
}

// running is a registry-cache in this process.
type running struct {
	t                *testing.T
	data             string
	address, metrics string
	cancel           context.CancelFunc
	ended            chan error
	args             []string
}

// begin starts one on the data path and waits until it is ready.
func begin(t *testing.T, data string, args ...string) *running {
	t.Helper()
	r := &running{t: t, data: data, address: free(t), metrics: free(t), ended: make(chan error, 1)}
	r.args = append([]string{"registry-cache", "--data", data, "--listen", r.address, "--metrics", r.metrics}, args...)
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() { r.ended <- app().Run(ctx, r.args) }()
	t.Cleanup(func() { r.end() })
	for r.status("readyz") != http.StatusOK {
		select {
		case err := <-r.ended:
			t.Fatalf("it ended: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return r
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// status returns the status of a page of the metrics listener, 0 without one.
func (r *running) status(page string) int {
	resp, err := http.Get("http://" + r.metrics + "/" + page)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// end ends it and waits for that; a second call does nothing.
func (r *running) end() {
	r.t.Helper()
	r.cancel()
	if err, ok := <-r.ended; ok {
		close(r.ended)
		if err != nil {
			r.t.Errorf("registry-cache ended with %v", err)
		}
	}
}

// get returns the answer to a request for a path below /v2/team/app/.
func (r *running) get(what string) []byte {
	r.t.Helper()
	resp, err := http.Get("http://" + r.address + "/v2/team/app/" + what)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		r.t.Fatalf("GET %s: %s, %v: %.200s", what, resp.Status, err, body)
	}
	return body
}

// pull gets the image and checks it.
func (r *running) pull(o *origin) {
	r.t.Helper()
	for what, d := range map[string]digest.Digest{
		"manifests/v1": o.manifest.Digest, "blobs/" + o.config.Digest.String(): o.config.Digest, "blobs/" + o.layer.Digest.String(): o.layer.Digest,
	} {
		if got := digest.FromBytes(r.get(what)); got != d {
			r.t.Fatalf("%s is %s, want %s", what, got, d)
		}
	}
}

// command runs a subcommand for it and returns what it printed.
func (r *running) command(args ...string) (string, error) {
	var out bytes.Buffer
	a := app()
	a.Writer, a.ErrWriter = &out, io.Discard
	err := a.Run(r.t.Context(), append([]string{"registry-cache", "--data", r.data}, args...))
	return out.String(), err
}

// stat returns what the cache says of itself.
func (r *running) stat() (s struct {
	Blobs, Links int
	Bytes        int64
	Outcomes     map[string]int
}) {
	r.t.Helper()
	out, err := r.command("stat", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	if err != nil {
		r.t.Fatalf("stat: %v\n%s", err, out)
	}
	return s
}

// files returns the files below the data path whose name ends with suffix.
func (r *running) files(suffix string, size int64) (out []string) {
	r.t.Helper()
	err := filepath.WalkDir(r.data, func(name string, d os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(name, suffix) {
			return err
		}
		if st, err := d.Info(); err == nil && st.Size() == size {
			out = append(out, name)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}
