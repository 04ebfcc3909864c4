package proxy_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

// hitRig serves a blob of size bytes that it has, to everybody.
func hitRig(b *testing.B, size int) (r *rig, path string, data []byte) {
	g := newRegistry(b)
	data = cachetest.Random(size, 1)
	path = "/v2/app/blobs/" + g.addBlob("app", data).String()
	r = newRig(b, g)
	r.cfg.Observer = nil
	r.permit.Policy = permit.Trusted
	r.start(b)
	for range 2 { // fetched, then from the cache
		resp, err := r.client.Get(r.server.URL + path)
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(size) {
			b.Fatal(n, err)
		}
		resp.Body.Close()
	}
	return r, path, data
}

// bare is the least that a handler can do to send the same answer.
func bare(data []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data)
	})
}

// sink is a ResponseWriter that throws away what it gets.
type sink struct{ h http.Header }

func (s *sink) Header() http.Header              { return s.h }
func (s *sink) Write(p []byte) (int, error)      { return len(p), nil }
func (s *sink) WriteHeader(int)                  {}
func (s *sink) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkHitHandler is what the handler itself takes for a hit of 4 KiB.
func BenchmarkHitHandler(b *testing.B) {
	r, path, data := hitRig(b, 4<<10)
	for _, c := range []struct {
		name    string
		handler http.Handler
	}{{"bare", bare(data)}, {"proxy", r.handler}} {
		b.Run(c.name, func(b *testing.B) {
			req := httptest.NewRequest(http.MethodGet, path, nil)
			b.ReportAllocs()
			before := cpuTime(b)
			for b.Loop() {
				c.handler.ServeHTTP(&sink{make(http.Header, 8)}, req)
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpuTime is what the process has used, which a busy machine changes less than the
// time that passes.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkHit is a hit over a connection on loopback, alternating with a bare
// handler's answer; it reports how much longer it takes.
func BenchmarkHit(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			r, path, data := hitRig(b, size)
			plain := httptest.NewServer(bare(data))
			defer plain.Close()
			var took, cpu [2]time.Duration
			b.SetBytes(int64(size))
			for b.Loop() {
				for i, url := range []string{plain.URL, r.server.URL} {
					start, used := time.Now(), cpuTime(b)
					resp, err := r.client.Get(url + path)
					if err != nil {
						b.Fatal(err)
					}
					if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(size) {
						b.Fatal(n, err)
					}
					resp.Body.Close()
					took[i] += time.Since(start)
					cpu[i] += cpuTime(b) - used
				}
			}
			n := float64(b.N)
			b.ReportMetric(float64(took[0].Nanoseconds())/n, "bare-ns/op")
			b.ReportMetric(float64(took[1].Nanoseconds())/n, "proxy-ns/op")
			b.ReportMetric(float64(took[1])/float64(took[0]), "ratio")
			b.ReportMetric(float64((cpu[1]-cpu[0]).Nanoseconds())/n, "more-cpu-ns/op")
		})
	}
}
