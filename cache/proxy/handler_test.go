package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/cache/proxy"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

// status makes a request and returns its status and body.
func (r *rig) status(t *testing.T, method, path, user string) (int, []byte) {
	t.Helper()
	resp, err := r.client.Do(r.request(t, method, path, user))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// TestNegative has refusals kept, each for the one who was refused.
func TestNegative(t *testing.T) {
	g := newRegistry(t)
	d := g.addBlob("app", []byte("x"))
	g.repo("app").readers = []string{"alice"}
	r := newRig(t, g)
	r.permit.NegativeTTL = time.Hour
	r.start(t)
	for _, c := range []struct {
		user          string
		status, heads int
	}{
		{"bob", 403, 1}, {"bob", 403, 1}, {"", 401, 2}, {"", 401, 2}, {"alice", 200, 3}, {"bob", 403, 3},
	} {
		if s, _ := r.status(t, http.MethodGet, "/v2/app/blobs/"+d.String(), c.user); s != c.status {
			t.Errorf("%q: %d", c.user, s)
		}
		if n := g.count(http.MethodHead, ""); n != c.heads {
			t.Errorf("%q: %d HEADs", c.user, n)
		}
	}
}

// TestRevoked has a permission for ranges end when a GET is refused.
func TestRevoked(t *testing.T) {
	g := newRegistry(t)
	data := cachetest.Random(200_000, 1)
	d := g.addBlob("app", data)
	r := newRig(t, g).start(t)
	get := func(off int) int {
		req := r.request(t, http.MethodGet, "/v2/app/blobs/"+d.String(), "alice")
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+99))
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if s := get(0); s != http.StatusPartialContent {
		t.Fatal(s)
	}
	g.mu.Lock()
	g.repos["app"].readers = []string{"bob"}
	g.mu.Unlock()
	// What is there is allowed for a minute. What is not needs a GET, which is
	// refused, and from then on so is the rest.
	for i, c := range []struct{ off, status int }{{0, 206}, {1000, 403}, {0, 403}} {
		if s := get(c.off); s != c.status {
			t.Errorf("step %d: %d", i, s)
		}
	}
}

// TestOnManifest looks at what the hook gets, and reads by its source.
func TestOnManifest(t *testing.T) {
	g := newRegistry(t)
	layer := []byte("a layer")
	d := g.addBlob("app", layer)
	g.repo("app").readers = []string{"alice"}
	text := fmt.Appendf(nil, `{"mediaType":%q,"layers":[{"digest":%q,"size":%d}]}`, ociManifest, d, len(layer))
	md := g.addManifest("app", "v1", ociManifest, text)
	r := newRig(t, g)
	var mu sync.Mutex
	var seen []proxy.Manifest
	r.cfg.OnManifest = func(_ context.Context, m proxy.Manifest) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, m)
	}
	r.start(t)
	for _, c := range [][2]string{{"GET", "alice"}, {"GET", "alice"}, {"HEAD", "alice"}, {"GET", "bob"}} {
		r.status(t, c[0], "/v2/app/manifests/v1", c[1])
	}
	if len(seen) != 2 {
		t.Fatalf("%d calls", len(seen))
	}
	for _, m := range seen {
		want := ocispec.Descriptor{MediaType: ociManifest, Digest: md, Size: int64(len(text))}
		if m.Target.Host != g.host() || m.Repository != "app" || m.Reference != "v1" || !bytes.Equal(m.Body, text) ||
			m.Descriptor.Digest != want.Digest || m.Descriptor.Size != want.Size || m.Descriptor.MediaType != want.MediaType {
			t.Errorf("%+v", m)
		}
		body, err := m.Source(ocispec.Descriptor{Digest: d, Size: int64(len(layer))}).Open(t.Context(), 2, 5)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		body.Close()
		if err != nil || string(got) != "layer" {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// TestNoRoom has a cache that takes nothing: everything is served all the same.
func TestNoRoom(t *testing.T) {
	g := newRegistry(t)
	data := cachetest.Random(3<<20, 1)
	d := g.addBlob("app", data)
	text := []byte(`{"mediaType":"` + ociManifest + `","layers":[]}`)
	g.addManifest("app", "v1", ociManifest, text)
	r := newRig(t, g)
	r.cacheCfg.MinFreeBytes = 1 << 60
	r.start(t)
	for range 2 {
		if err := r.pull(r.request(t, http.MethodGet, "/v2/app/blobs/"+d.String(), ""), data, nil); err != nil {
			t.Error(err)
		}
		if err := r.pull(r.request(t, http.MethodGet, "/v2/app/manifests/v1", ""), text, nil); err != nil {
			t.Error(err)
		}
	}
	if s := r.handler.Stats(); s.NotStored == 0 || s.Memory.Items != 1 {
		t.Errorf("%+v", s)
	}
}

// TestMemoryBound pulls more small blobs than memory takes.
func TestMemoryBound(t *testing.T) {
	g := newRegistry(t)
	r := newRig(t, g)
	r.cfg.MemoryBytes = 200 << 10
	r.start(t)
	var all []digest.Digest
	for i := range 40 {
		all = append(all, g.addBlob("app", cachetest.Random(20<<10, uint64(i))))
	}
	for range 3 {
		for _, d := range all {
			if s, body := r.status(t, http.MethodGet, "/v2/app/blobs/"+d.String(), ""); s != 200 || digest.FromBytes(body) != d {
				t.Fatal(s)
			}
		}
	}
	s := r.handler.Stats().Memory
	if s.Bytes > 200<<10 || s.Items == 0 || s.Evict == 0 {
		t.Errorf("%+v", s)
	}
	for _, d := range all {
		r.handler.Forget(d)
	}
	if s := r.handler.Stats().Memory; s.Items != 0 || s.Bytes != 0 {
		t.Errorf("%+v", s)
	}
}

// TestSecrets holds that neither credentials nor the address of a redirect are in
// what a client or an observer gets.
func TestSecrets(t *testing.T) {
	g := newRegistry(t)
	d := g.addBlob("app", cachetest.Random(100_000, 1))
	g.repo("app").redirect = true
	r := newRig(t, g).start(t)
	var out bytes.Buffer
	for i, f := range []*fault{
		{method: "GET", path: "/app", status: 500, body: `{"errors":[{"code":"X","message":"` + g.store.URL + `/a?` + secretQuery + `"}]}`},
		{method: "GET", path: "/app", status: 307, header: http.Header{"Location": {"http://127.0.0.1:1/a?" + secretQuery}}},
		{method: "HEAD", path: "/app", status: 307, header: http.Header{"Location": {"http://127.0.0.1:1/a?" + secretQuery}}},
	} {
		f.count = 1
		g.order(f)
		resp, err := r.client.Do(r.request(t, http.MethodGet, "/v2/app/blobs/"+d.String()+"?token=t0ken", "passw0rd"))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Header.Write(&out)
		if i < 2 { // the third is the blob
			_, _ = io.Copy(&out, resp.Body)
		}
		resp.Body.Close()
	}
	for _, rec := range r.observed(t, 3) {
		fmt.Fprintf(&out, "%+v\n", rec)
	}
	for _, secret := range []string{"s3cr3t", "passw0rd", "t0ken"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%s is in\n%s", secret, out.String())
		}
	}
}

// TestHTTP2 goes through what net/http does differently there.
func TestHTTP2(t *testing.T) {
	g := newRegistry(t)
	data := cachetest.Random(2<<20, 1)
	d := g.addBlob("app", data)
	r := newRig(t, g).start(t)
	s := httptest.NewUnstartedServer(r.handler)
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	for range 3 {
		resp, err := s.Client().Get(s.URL + "/v2/app/blobs/" + d.String())
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.ProtoMajor != 2 || !bytes.Equal(got, data) {
			t.Fatal(resp.Proto, len(got), err)
		}
	}
}

func TestNew(t *testing.T) {
	if _, err := proxy.New(proxy.Config{}, proxy.Parts{}); err == nil {
		t.Error("no parts are enough")
	}
	if _, err := proxy.New(proxy.Config{Streamers: -1}, proxy.Parts{Permit: permit.New(permit.Config{}, nil)}); err == nil {
		t.Error("-1 streamers are possible")
	}
}
