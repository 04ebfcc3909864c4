package upstream_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/reprise-containers/reprise/remote/registry/transport"
	"github.com/reprise-containers/reprise/remote/upstream"
)

// BenchmarkHead is a permission asked for, beside the same on a bare transport.
func BenchmarkHead(b *testing.B) {
	at := serve(b, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "4096") })
	bare := transport.New(transport.Options{Dial: transport.Dialer(0)})
	c := client(b, upstream.Config{})
	for _, x := range []struct {
		name string
		do   func(*http.Request) (*http.Response, error)
	}{{"bare", bare.RoundTrip}, {"client", c.Do}} {
		b.Run(x.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				resp, err := x.do(request(b, "HEAD", at+"/v2/a/blobs/b", "Bearer token"))
				if err != nil {
					b.Fatal(err)
				}
				resp.Body.Close()
			}
		})
	}
}

// BenchmarkBlob is a download of 64 MiB, beside the same on a bare transport.
func BenchmarkBlob(b *testing.B) {
	const size = 64 << 20
	data := make([]byte, 1<<20)
	at := serve(b, func(w http.ResponseWriter, r *http.Request) {
		for range size / len(data) {
			w.Write(data)
		}
	})
	bare := transport.New(transport.Options{Dial: transport.Dialer(0)})
	c := client(b, upstream.Config{})
	buf := make([]byte, 256<<10)
	for _, x := range []struct {
		name string
		do   func(*http.Request) (*http.Response, error)
	}{{"bare", bare.RoundTrip}, {"client", c.Do}} {
		b.Run(x.name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				resp, err := x.do(request(b, "GET", at+"/v2/a/blobs/b", ""))
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, buf)
				if resp.Body.Close(); err != nil || n != size {
					b.Fatal(n, err)
				}
			}
		})
	}
}
