package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
)

// stream streams data of host from off on to its end.
func stream(t *testing.T, c *registry.Client, host string, data []byte, off int64) ([]byte, error) {
	t.Helper()
	s, err := c.Stream(t.Context(), host+"/team/app:1", descriptor(data), off)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return io.ReadAll(s)
}

func mustStream(t *testing.T, c *registry.Client, host string, data []byte, off int64) {
	t.Helper()
	if got, err := stream(t, c, host, data, off); err != nil || !bytes.Equal(got, data[off:]) {
		t.Errorf("streaming from %d: %d bytes, %v", off, len(got), err)
	}
}

func TestStream(t *testing.T) {
	data := pattern(100_000)
	host := serve(t, content(data))
	c := client(t, registry.Config{})
	for _, off := range []int64{0, 1, 4096, 99_999, 100_000} {
		mustStream(t, c, host, data, off)
	}
	for _, off := range []int64{-1, 100_001} {
		if _, err := stream(t, c, host, data, off); err == nil || !blob.IsPermanent(err) {
			t.Errorf("streaming from %d: %v", off, err)
		}
	}
	if _, err := c.Stream(t.Context(), "//", descriptor(data), 0); err == nil {
		t.Error("a reference that is none can be streamed")
	}
}

// A stream finds its way as a read does: credentials, redirects without them,
// and the mirror that has it.
func TestStreamWay(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		data := pattern(10_000)
		root := t.TempDir()
		hostConfig(t, root, "registry.test", mirrors)
		has := false
		n.serve(t, "mirror.test", func(w http.ResponseWriter, r *http.Request) {
			if has {
				content(data)(w, r)
			} else {
				w.WriteHeader(404)
			}
		})
		n.serve(t, "registry.test", basic("u", "p", redirect("http://store.test/data?sig=1")))
		store := n.serve(t, "store.test", content(data))
		c := n.client(t, registry.Config{Credentials: login("u", "p"), HostsDir: root})
		mustStream(t, c, "registry.test", data, 1234)
		for _, r := range store.seen() {
			if r.Header.Get("Authorization") != "" || r.Header.Get("Range") != "bytes=1234-" || r.ProtoMajor != 1 {
				t.Errorf("the store was asked by %s with %v", r.Proto, r.Header)
			}
		}
		has = true
		mustStream(t, c, "registry.test", data, 0)
		if got := len(store.seen()); got != 1 {
			t.Errorf("%d requests to the store although the mirror has it", got)
		}
	})
}

// What is no range of the blob is not taken for one.
func TestStreamAnswers(t *testing.T) {
	data := pattern(10_000)
	answer := func(code int, contentRange string, body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if contentRange != "" {
				w.Header().Set("Content-Range", contentRange)
			}
			w.WriteHeader(code)
			_, _ = w.Write(body)
		}
	}
	for name, c := range map[string]struct {
		off  int64
		h    http.HandlerFunc
		want string // part of the error of Stream, or of reading
	}{
		"range":                    {100, answer(206, "bytes 100-9999/10000", data[100:]), ""},
		"all of it from 0":         {0, answer(200, "", data), ""},
		"all of it from elsewhere": {100, answer(200, "", data), "Range ignored"},
		"another range":            {100, answer(206, "bytes 0-9899/10000", data[:9900]), "bytes 0-9899"},
		"a shorter range":          {100, answer(206, "bytes 100-199/10000", data[100:200]), "bytes 100-199"},
		"another blob":             {100, answer(206, "bytes 100-9999/20000", data[100:]), "20000"},
		"no range":                 {100, answer(206, "", data[100:]), "not understood"},
		"nothing there":            {100, answer(416, "bytes */50", nil), "bytes */50"},
		"not there":                {100, answer(404, "", nil), "404"},
		"busy":                     {100, answer(503, "", nil), "503"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := stream(t, client(t, registry.Config{}), serve(t, c.h), data, c.off)
			if c.want == "" && (err != nil || !bytes.Equal(got, data[c.off:])) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// A stream that breaks says so and what it returned before is right; it does not
// read on past the blob.
func TestStreamBreaks(t *testing.T) {
	data := pattern(1 << 20)
	host := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 100-1048575/1048576")
		w.Header().Set("Content-Length", fmt.Sprint(len(data)-100))
		w.WriteHeader(206)
		_, _ = w.Write(data[100:50_000])
		panic(http.ErrAbortHandler)
	})
	got, err := stream(t, client(t, registry.Config{}), host, data, 100)
	if !bytes.Equal(got, data[100:50_000]) || !errors.Is(err, io.ErrUnexpectedEOF) || blob.IsPermanent(err) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	long := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 1048000-1048575/1048576")
		w.WriteHeader(206)
		w.(http.Flusher).Flush() // no Content-Length
		_, _ = w.Write(data)
	})
	mustStream(t, client(t, registry.Config{}), long, append(bytes.Clone(data[:1048000]), data[:576]...), 1048000)
}

// A stream ends with its context, and one that nobody reads is none that stalls.
func TestStreamCancelled(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		data := pattern(1 << 20)
		n.serve(t, "registry.test", content(data))
		ctx, cancel := context.WithCancel(t.Context())
		c := n.client(t, registry.Config{PlainHTTP: []string{"registry.test"}})
		s, err := c.Stream(ctx, "registry.test/app", descriptor(data), 0)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		p := make([]byte, 1000)
		if _, err := io.ReadFull(s, p); err != nil || !bytes.Equal(p, data[:1000]) {
			t.Errorf("after a pause: %v", err)
		}
		cancel()
		if _, err := io.ReadAll(s); !errors.Is(err, context.Canceled) {
			t.Errorf("after it was cancelled: %v", err)
		}
		s.Close()
	})
}

// What a stream does not read is not sent, also by TLS where other requests go
// by HTTP/2. How much that is, the kernel decides: packages above measure it.
func TestStreamWindow(t *testing.T) {
	data := pattern(64 << 20)
	written := make(chan int, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			t.Errorf("streaming by %s", r.Proto)
		}
		n := 0
		http.ServeContent(&counting{w, &n}, r, "", time.Time{}, bytes.NewReader(data))
		written <- n
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "https://")
	c := client(t, registry.Config{Insecure: []string{host}})
	ctx, cancel := context.WithCancel(t.Context())
	st, err := c.Stream(ctx, host+"/app", descriptor(data), 0)
	if err != nil {
		t.Fatal(err)
	}
	st.SetWindow(256 << 10)
	p := make([]byte, 1<<20)
	for off := 0; off < 8<<20; off += len(p) {
		if _, err := io.ReadFull(st, p); err != nil || !bytes.Equal(p, data[off:off+len(p)]) {
			t.Fatalf("at %d: %v", off, err)
		}
	}
	if st.Unread() > 1<<20 || st.FirstByte() <= 0 {
		t.Errorf("%d bytes lie here, the first came after %s", st.Unread(), st.FirstByte())
	}
	cancel()
	st.Close()
	if n := <-written; n > 48<<20 {
		t.Errorf("%d bytes were written although only 8 MiB were read", n)
	}
}

// counting counts what is written.
type counting struct {
	http.ResponseWriter
	n *int
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	*c.n += n
	return n, err
}
