package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/registry"
)

const manifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}`

func manifestDescriptor(text string) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(text), Size: int64(len(text)),
	}
}

// answerManifest answers with the given headers, the right ones where none are.
func answerManifest(text string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", ocispec.MediaTypeImageManifest)
		h.Set("Docker-Content-Digest", digest.FromString(text).String())
		h.Set("Content-Length", fmt.Sprint(len(text)))
		for i := 0; i < len(header); i += 2 {
			if h[header[i]] = []string{header[i+1]}; header[i+1] == "" {
				delete(h, header[i])
			}
		}
		if r.Method != http.MethodHead {
			io.WriteString(w, text)
		}
	}
}

func noHead(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		h(w, r)
	}
}

func TestResolve(t *testing.T) {
	want := manifestDescriptor(manifest)
	bare := `{"schemaVersion":2,"layers":[]}`
	for name, c := range map[string]struct {
		object   string
		h        http.HandlerFunc
		requests int
		want     ocispec.Descriptor
		err      string
		is       error
	}{
		"by tag":              {":1", answerManifest(manifest), 1, want, "", nil},
		"by digest":           {"@" + want.Digest.String(), answerManifest(manifest), 1, want, "", nil},
		"no HEAD":             {":1", noHead(answerManifest(manifest)), 2, want, "", nil},
		"no digest":           {":1", answerManifest(manifest, "Docker-Content-Digest", ""), 2, want, "", nil},
		"bad digest":          {":1", answerManifest(manifest, "Docker-Content-Digest", "sha256:12"), 2, want, "", nil},
		"no type":             {":1", answerManifest(manifest, "Content-Type", ""), 2, want, "", nil},
		"type with parameter": {":1", answerManifest(manifest, "Content-Type", ocispec.MediaTypeImageManifest+"; charset=utf-8"), 1, want, "", nil},
		"type by its fields":  {":1", answerManifest(bare, "Content-Type", "text/plain"), 2, manifestDescriptor(bare), "", nil},
		"other content":       {"@" + want.Digest.String(), answerManifest(bare), 2, want, "answered content with digest", nil},
		"no manifest":         {":1", answerManifest("<html>", "Content-Type", "text/html"), 2, want, "is none", nil},
		"no manifest either":  {":1", answerManifest("{}", "Content-Type", "text/html"), 2, want, "is no manifest", nil},
		"missing":             {":1", status(404), 1, want, "404", errdefs.ErrNotFound},
		"denied":              {":1", status(403), 2, want, "check the credentials", errdefs.ErrPermissionDenied},
		"down":                {":1", status(503), 3, want, "giving up after 3", errdefs.ErrUnavailable},
		"huge":                {":1", answerManifest(manifest, "Content-Length", "99999999"), 1, want, "refused", nil},
		"huge without HEAD":   {":1", noHead(answerManifest(strings.Repeat(" ", registry.MaxManifestSize+1))), 2, want, "refused", nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			reg := n.serve(t, "registry.test", c.h)
			got, err := n.client(t, registry.Config{}).Resolve(t.Context(), "registry.test/team/app"+c.object)
			if c.err == "" && (err != nil || got.Digest != c.want.Digest || got.Size != c.want.Size || got.MediaType != c.want.MediaType) {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
			if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("error %v does not say %q", err, c.err)
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("error %v is not %v", err, c.is)
			}
			if len(reg.seen()) != c.requests {
				t.Errorf("%d requests, want %d", len(reg.seen()), c.requests)
			}
		})
	}
}

func TestResolveAsksForLatest(t *testing.T) {
	n := newNet()
	reg := n.serve(t, "registry.test", answerManifest(manifest))
	if _, err := n.client(t, registry.Config{}).Resolve(t.Context(), "registry.test/app"); err != nil {
		t.Fatal(err)
	}
	if got := reg.seen()[0].URL.Path; got != "/v2/app/manifests/latest" {
		t.Errorf("asked for %s", got)
	}
}

// TestMirrorsDoNotResolve checks that hosts not trusted with tags are not asked
// for them.
func TestMirrorsDoNotResolve(t *testing.T) {
	n := newNet()
	root := t.TempDir()
	hostConfig(t, root, "registry.test", mirrors)
	n.serve(t, "registry.test", answerManifest(manifest))
	mirror := n.serve(t, "mirror.test", answerManifest(manifest))
	c := n.client(t, registry.Config{HostsDir: root})
	desc, err := c.Resolve(t.Context(), "registry.test/app:1")
	if err != nil || len(mirror.seen()) != 0 {
		t.Fatalf("%d requests to the mirror, %v", len(mirror.seen()), err)
	}
	if _, err := c.Resolve(t.Context(), "registry.test/app@"+desc.Digest.String()); err != nil || len(mirror.seen()) != 1 {
		t.Errorf("by digest: %d requests to the mirror, %v", len(mirror.seen()), err)
	}
}

func TestFetch(t *testing.T) {
	small, large := pattern(10_000), pattern(registry.MaxManifestSize+10_000)
	body := func(data []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush() // without Content-Length
			w.Write(data)
		}
	}
	flip := func(data []byte) []byte {
		wrong := bytes.Clone(data)
		wrong[5]++
		return wrong
	}
	for name, c := range map[string]struct {
		data []byte
		h    http.HandlerFunc
		err  string
	}{
		"small":             {small, content(small), ""},
		"large":             {large, content(large), ""},
		"empty":             {nil, content(nil), ""},
		"small, wrong":      {small, content(flip(small)), "does not have the digest"},
		"large, wrong":      {large, content(flip(large)), "does not have the digest"},
		"small, short":      {small, body(small[:9000]), "1000 bytes early"},
		"large, short":      {large, body(large[:len(large)-1000]), "1000 bytes early"},
		"small, long":       {small, body(append(bytes.Clone(small), 1)), "longer"},
		"large, long":       {large, body(append(bytes.Clone(large), 1)), "longer"},
		"other size":        {small, content(small[:500]), "has 500 bytes"},
		"missing":           {small, status(404), "404"},
		"partial":           {small, status(206), "unexpected answer"},
		"denied":            {small, status(401), "401"},
		"redirected nowhre": {small, redirect("http://nowhere.test/"), "nowhere.test"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			n.serve(t, "registry.test", c.h)
			r, err := n.client(t, registry.Config{}).Fetch(t.Context(), "registry.test/app:1", descriptor(c.data))
			var got []byte
			if err == nil {
				got, err = io.ReadAll(r)
				r.Close()
			}
			if c.err == "" && (err != nil || !bytes.Equal(got, c.data)) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("error %v does not say %q", err, c.err)
			}
		})
	}
}

func TestFetchRepairsSmallContent(t *testing.T) {
	n := newNet()
	calls := 0
	n.serve(t, "registry.test", func(w http.ResponseWriter, r *http.Request) {
		if calls++; calls < 3 {
			w.Header().Set("Content-Length", fmt.Sprint(len(manifest)))
			io.WriteString(w, manifest[:10])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		if !strings.HasPrefix(r.URL.Path, "/v2/app/manifests/sha256:") {
			t.Errorf("asked for %s", r.URL.Path)
		}
		answerManifest(manifest)(w, r)
	})
	r, err := n.client(t, registry.Config{}).Fetch(t.Context(), "registry.test/app:1", manifestDescriptor(manifest))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != manifest {
		t.Errorf("%q, %v", got, err)
	}
}

// uploads is a registry that takes uploads, and fails the first failures of
// them half way.
type uploads struct {
	mu       sync.Mutex
	failures int
	location string
	stored   map[string][]byte
}

func (u *uploads) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch r.Method {
	case http.MethodHead:
		if _, ok := u.stored[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]; !ok {
			w.WriteHeader(http.StatusNotFound)
		}
	case http.MethodPost:
		w.Header().Set("Location", u.location)
		w.WriteHeader(http.StatusAccepted)
	case http.MethodPut:
		if u.failures > 0 {
			u.failures--
			io.ReadFull(r.Body, make([]byte, 10))
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		data, err := io.ReadAll(r.Body)
		key := r.URL.Query().Get("digest")
		if key == "" {
			key = r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		} else if err != nil || digest.FromBytes(data).String() != key {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if u.stored == nil {
			u.stored = make(map[string][]byte)
		}
		u.stored[key] = data
		w.WriteHeader(http.StatusCreated)
	}
}

func TestPush(t *testing.T) {
	data := pattern(100_000)
	desc := descriptor(data)
	for name, location := range map[string]string{
		"relative":   "/somewhere?state=1",
		"absolute":   "http://registry.test/somewhere",
		"other host": "http://store.test/upload",
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			u := &uploads{failures: 2, location: location}
			reg := n.serve(t, "registry.test", basic("u", "p", u.ServeHTTP))
			store := n.serve(t, "store.test", u.ServeHTTP)
			c := n.client(t, registry.Config{Credentials: login("u", "p")})
			for range 2 {
				if err := c.Push(t.Context(), "registry.test/app:1", desc, bytes.NewReader(data)); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(u.stored[desc.Digest.String()], data) {
				t.Error("what was stored is not what was pushed")
			}
			puts := 0
			for _, r := range append(reg.seen(), store.seen()...) {
				if r.Method == http.MethodPut {
					puts++
				}
			}
			if puts != 3 {
				t.Errorf("%d uploads, want two that failed and one", puts)
			}
			for _, r := range store.seen() {
				if r.Header.Get("Authorization") != "" {
					t.Error("credentials went to another host")
				}
			}
		})
	}
}

func TestPushErrors(t *testing.T) {
	data := pattern(1000)
	n := newNet()
	u := &uploads{location: "/up", failures: 1}
	n.serve(t, "registry.test", u.ServeHTTP)
	c := n.client(t, registry.Config{})
	push := func(desc ocispec.Descriptor, r io.Reader) error {
		return c.Push(t.Context(), "registry.test/app:1", desc, r)
	}
	// The source can not be read twice.
	if err := push(descriptor(data), io.MultiReader(bytes.NewReader(data))); err == nil || !strings.Contains(err.Error(), "again") {
		t.Errorf("error %v", err)
	}
	if err := push(descriptor(data), bytes.NewReader(data[:500])); err == nil {
		t.Error("a source that is too short is accepted")
	}
	if err := push(manifestDescriptor(manifest), strings.NewReader(manifest[1:])); err == nil || !strings.Contains(err.Error(), "descriptor") {
		t.Errorf("a wrong manifest: %v", err)
	}
	if len(u.stored) != 0 {
		t.Errorf("stored %d things", len(u.stored))
	}
}

func TestPushManifest(t *testing.T) {
	desc := manifestDescriptor(manifest)
	for ref, key := range map[string]string{
		"registry.test/app:1":                            "1",
		"registry.test/app":                              desc.Digest.String(),
		"registry.test/app@" + desc.Digest.String():      desc.Digest.String(),
		"registry.test/app:tag@" + desc.Digest.String():  desc.Digest.String(),
		"registry.test/app@sha256:" + zeros(64):          "",
		"registry.test/app:tag@sha256:" + zeros(64):      "",
		"registry.test/app:" + strings.Repeat("x", 1000): "",
	} {
		n := newNet()
		u := &uploads{}
		n.serve(t, "registry.test", u.ServeHTTP)
		err := n.client(t, registry.Config{}).Push(t.Context(), ref, desc, strings.NewReader(manifest))
		if (err == nil) != (key != "") || key != "" && string(u.stored[key]) != manifest {
			t.Errorf("%s: error %v, stored %v", ref, err, u.stored)
		}
	}
}

func zeros(n int) string { return strings.Repeat("0", n) }

func TestFetchStreamIsCancelled(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		large := pattern(registry.MaxManifestSize + 10_000)
		n.serve(t, "registry.test", func(w http.ResponseWriter, r *http.Request) {
			w.Write(large[:1000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		c := n.client(t, registry.Config{IdleTimeout: 5 * time.Second})
		r, err := c.Fetch(t.Context(), "registry.test/app:1", descriptor(large))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		start := time.Now()
		if _, err := io.Copy(io.Discard, r); err == nil || time.Since(start) != 5*time.Second {
			t.Errorf("error %v after %s", err, time.Since(start))
		}
	})
}
