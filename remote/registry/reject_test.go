package registry_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
)

// twoMirrors is a hosts.toml with two mirrors before the registry.
const twoMirrors = `
server = "http://registry.test"

[host."http://one.test"]
  capabilities = ["pull"]
[host."http://two.test"]
  capabilities = ["pull"]
`

// servedBy reads [off, off+10) and returns who served it.
func servedBy(t *testing.T, b blob.Blob, data []byte, off int64) []string {
	t.Helper()
	ctx, origins := blob.WithOrigins(t.Context())
	p := make([]byte, 10)
	if _, err := b.ReadAt(ctx, p, off); err != nil || !bytes.Equal(p, data[off:off+10]) {
		t.Fatal(err)
	}
	return origins.Of(off, 10)
}

func TestReject(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		data := pattern(100)
		root := t.TempDir()
		hostConfig(t, root, "registry.test", twoMirrors)
		for _, name := range []string{"one.test", "two.test", "registry.test"} {
			n.serve(t, name, content(data))
		}
		c := n.client(t, registry.Config{HostsDir: root})
		// Decorators pass a rejection down.
		b := blob.Retry(blob.Observe(blob.NewLimiter(blob.LimitConfig{}).Limit(open(t, c, "registry.test", data)),
			blob.ObserverFunc(func(int, time.Duration, error, blob.Priority) {})), blob.RetryConfig{})
		want := func(host string) {
			t.Helper()
			if got := servedBy(t, b, data, 20); !slices.Equal(got, []string{"http://" + host}) {
				t.Errorf("served by %q, want %s", got, host)
			}
		}
		reject := func(host string) {
			t.Helper()
			if !blob.Reject(b, "http://"+host) {
				t.Fatal("nobody took the rejection")
			}
			time.Sleep(time.Second)
		}
		want("one.test")
		reject("one.test")
		want("two.test")
		reject("two.test")
		want("registry.test")
		reject("registry.test")
		want("one.test") // all are as bad; it is the longest ago
		reject("one.test")
		want("two.test")
		// A blob opened for another image has nothing to do with it.
		if got := servedBy(t, open(t, c, "registry.test", data), data, 20); !slices.Equal(got, []string{"http://one.test"}) {
			t.Errorf("another blob is served by %q", got)
		}
		time.Sleep(5*time.Minute - 2*time.Second)
		want("two.test") // whose own time is over
		time.Sleep(2 * time.Second)
		want("one.test")
	})
}

// TestOriginsOfParts has a mirror break off and the registry serve the rest.
func TestOriginsOfParts(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		data := pattern(100)
		root := t.TempDir()
		hostConfig(t, root, "registry.test", mirrors)
		n.serve(t, "mirror.test", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 20-29/100")
			w.Header().Set("Content-Length", "10")
			w.WriteHeader(http.StatusPartialContent)
			w.Write(data[20:24])
		})
		n.serve(t, "registry.test", content(data))
		ctx, origins := blob.WithOrigins(t.Context())
		b := open(t, n.client(t, registry.Config{HostsDir: root}), "registry.test", data)
		if _, err := b.ReadAt(ctx, make([]byte, 10), 20); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			off, n int64
			want   []string
		}{
			{20, 4, []string{"http://mirror.test"}},
			{24, 6, []string{"http://registry.test"}},
			{23, 2, []string{"http://mirror.test", "http://registry.test"}},
			{30, 10, nil},
		} {
			if got := origins.Of(c.off, c.n); !slices.Equal(got, c.want) {
				t.Errorf("[%d, +%d) came from %q, want %q", c.off, c.n, got, c.want)
			}
		}
		if !origins.AnyFailed() {
			t.Error("nothing tells that a mirror failed")
		}
	})
}

// TestServedOnce has a mirror answer without a length, right and in the wrong
// ways: each byte of the read is reported once, in order, as served by the host
// it was taken from. Who hashes while bytes arrive relies on it.
func TestServedOnce(t *testing.T) {
	const size, off = 200 << 10, 1000
	data := pattern(1 << 20)
	right := data[off : off+size]
	for _, c := range []struct {
		name string
		body []byte
		want int // bytes taken of the mirror
	}{
		{"right", right, size},
		{"shorter", right[:150<<10], 150 << 10},
		{"longer", data[off : off+size+1], 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			within(t, func(t *testing.T, n *fakeNet) {
				root := t.TempDir()
				hostConfig(t, root, "registry.test", mirrors)
				n.serve(t, "mirror.test", func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+size-1, len(data)))
					w.WriteHeader(http.StatusPartialContent)
					w.(http.Flusher).Flush()
					w.Write(c.body)
				})
				n.serve(t, "registry.test", content(data))
				end := int64(off)
				ctx, origins := blob.WithArrivals(t.Context(), func(at int64, n int) {
					if at != end {
						t.Errorf("%d bytes at %d reported after those to %d", n, at, end)
					}
					end = at + int64(n)
				})
				p := make([]byte, size)
				_, err := open(t, n.client(t, registry.Config{HostsDir: root}), "registry.test", data).ReadAt(ctx, p, off)
				if err != nil || !bytes.Equal(p, right) || end != off+size {
					t.Fatalf("reported to %d, %v", end, err)
				}
				var from, rest []string
				if c.want > 0 {
					from = []string{"http://mirror.test"}
				}
				if c.want < size {
					rest = []string{"http://registry.test"}
				}
				if got := origins.Of(off, int64(c.want)); !slices.Equal(got, from) {
					t.Errorf("the first %d bytes came from %q", c.want, got)
				}
				if got := origins.Of(off+int64(c.want), int64(size-c.want)); !slices.Equal(got, rest) {
					t.Errorf("the rest came from %q", got)
				}
			})
		})
	}
}

// TestAbsentHostHasNotFailed has a mirror without the blob: it need not be
// waited for.
func TestAbsentHostHasNotFailed(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		data := pattern(100)
		root := t.TempDir()
		hostConfig(t, root, "registry.test", twoMirrors)
		n.serve(t, "one.test", status(http.StatusNotFound))
		n.serve(t, "two.test", content(data))
		b := open(t, n.client(t, registry.Config{HostsDir: root}), "registry.test", data)
		ctx, origins := blob.WithOrigins(t.Context())
		if _, err := b.ReadAt(ctx, make([]byte, 10), 20); err != nil || origins.AnyFailed() {
			t.Errorf("failed %v, %v", origins.AnyFailed(), err)
		}
	})
}

// TestRejectRedirect has one of the stores that a registry redirects to serve
// wrong bytes: the registry is asked again where to go.
func TestRejectRedirect(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		data := pattern(100)
		var asked atomic.Int64
		n.serve(t, "registry.test", func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1) == 1 {
				redirect("http://bad.test/")(w, r)
				return
			}
			redirect("http://store.test/")(w, r)
		})
		bad := n.serve(t, "bad.test", content(data))
		store := n.serve(t, "store.test", content(data))
		b := open(t, n.client(t, registry.Config{}), "registry.test", data)
		for range 3 {
			if got := servedBy(t, b, data, 20); !slices.Equal(got, []string{"http://registry.test"}) {
				t.Errorf("served by %q", got)
			}
		}
		blob.Reject(b, "http://registry.test")
		servedBy(t, b, data, 20)
		if len(bad.seen()) != 3 || len(store.seen()) != 1 || asked.Load() != 2 {
			t.Errorf("%d requests to the bad store, %d to the other, %d to the registry", len(bad.seen()), len(store.seen()), asked.Load())
		}
	})
}
