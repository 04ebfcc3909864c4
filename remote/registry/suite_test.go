package registry_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/remote/registry"
)

// descriptor describes data.
func descriptor(data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: "application/octet-stream", Digest: digest.FromBytes(data), Size: int64(len(data)),
	}
}

// pattern returns n bytes in which wrong offsets show.
func pattern(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i*7/3 + i>>9)
	}
	return data
}

// serve starts a server on a loopback address; host is what references call it.
func serve(t testing.TB, h http.HandlerFunc) (host string) {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// content serves data with ranges, as a registry should.
func content(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
}

// client returns a client without the credentials of whoever runs the test.
func client(t testing.TB, cfg registry.Config) *registry.Client {
	if cfg.DockerConfig == "" {
		cfg.DockerConfig = t.TempDir() + "/none.json"
	}
	if cfg.Retry.Base == 0 {
		cfg.Retry = blob.RetryConfig{Attempts: 3, Base: time.Millisecond, Max: time.Millisecond}
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	c, err := registry.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// open opens data as a blob of host.
func open(t testing.TB, c *registry.Client, host string, data []byte) blob.Blob {
	b, err := c.Open(host+"/team/app:1", descriptor(data))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBlobSuite(t *testing.T) {
	blobtest.Run(t, func(t *testing.T, data []byte) blob.Blob {
		return open(t, client(t, registry.Config{}), serve(t, content(data)), data)
	})
}

// BenchmarkReadAt includes the server, which runs in the same process: "bare" is
// a plain net/http request to it.
func BenchmarkReadAt(b *testing.B) {
	data := pattern(1 << 20)
	p := make([]byte, 16<<10)
	b.Run("bare", func(b *testing.B) {
		url := "http://" + serve(b, content(data))
		b.ReportAllocs()
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			r, _ := http.NewRequest(http.MethodGet, url, nil)
			r.Header.Set("Range", "bytes=4096-20479")
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(resp.Body, p); err != nil {
				b.Fatal(err)
			}
			resp.Body.Close()
		}
	})
	for _, redirect := range []bool{false, true} {
		name := "direct"
		h := content(data)
		if redirect {
			name = "redirected"
			store := serve(b, h)
			h = func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://"+store+"/data", http.StatusTemporaryRedirect)
			}
		}
		b.Run(name, func(b *testing.B) {
			bl := open(b, client(b, registry.Config{}), serve(b, h), data)
			b.ReportAllocs()
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				if _, err := bl.ReadAt(b.Context(), p, 4096); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
