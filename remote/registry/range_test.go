package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
)

// TestAnswers has a registry answer a read of 100 bytes at an offset of a blob
// of 1000 in every way it should not, and some it may.
func TestAnswers(t *testing.T) {
	data := pattern(1000)
	answer := func(status int, header map[string]string, body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for k, v := range header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(status)
			w.Write(body)
		}
	}
	cr := func(v string) map[string]string { return map[string]string{"Content-Range": v} }
	chunked := func(body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 300-399/1000")
			w.WriteHeader(http.StatusPartialContent)
			w.(http.Flusher).Flush()
			w.Write(body)
		}
	}
	for _, c := range []struct {
		name      string
		off       int64
		h         http.HandlerFunc
		want      string // in the error; empty: the right bytes
		temporary bool
	}{
		{name: "right", off: 300, h: content(data)},
		{name: "right, size unknown", off: 300, h: answer(206, cr("bytes 300-399/*"), data[300:400])},
		{name: "right, chunked", off: 300, h: chunked(data[300:400])},
		{name: "200 at offset 0", off: 0, h: answer(200, nil, data)},
		{name: "200 at offset 0 of another size", off: 0, h: answer(200, nil, data[:999]), want: "blob has 999 bytes"},
		{name: "200 elsewhere", off: 300, h: answer(200, nil, data), want: "Range ignored"},
		{name: "200 with Content-Range", off: 0, h: answer(200, cr("bytes 0-99/1000"), data), want: "status 200 with Content-Range"},
		{name: "204", off: 0, h: answer(204, nil, nil), want: "unexpected answer"},
		{name: "other start", off: 300, h: answer(206, cr("bytes 301-400/1000"), data[301:401]), want: "asked for 300-399"},
		{name: "other end", off: 300, h: answer(206, cr("bytes 300-398/1000"), data[300:399]), want: "asked for 300-399"},
		{name: "other size", off: 300, h: answer(206, cr("bytes 300-399/1001"), data[300:400]), want: "descriptor says 1000"},
		{name: "no Content-Range", off: 300, h: answer(206, nil, data[300:400]), want: "not understood"},
		{name: "other unit", off: 300, h: answer(206, cr("items 300-399/1000"), data[300:400]), want: "not understood"},
		{name: "signed", off: 300, h: answer(206, cr("bytes +300-399/1000"), data[300:400]), want: "not understood"},
		{name: "backwards", off: 300, h: answer(206, cr("bytes 399-300/1000"), data[300:400]), want: "not understood"},
		{name: "past its own size", off: 300, h: answer(206, cr("bytes 300-399/350"), data[300:400]), want: "not understood"},
		{name: "huge numbers", off: 300, h: answer(206, cr("bytes 300-99999999999999999999/*"), data[300:400]), want: "not understood"},
		{name: "longer body", off: 300, h: answer(206, cr("bytes 300-399/1000"), data[300:401]), want: "has 101"},
		{name: "longer chunked body", off: 300, h: chunked(data[300:401]), want: "more than the 100 bytes"},
		{name: "shorter chunked body", off: 300, h: chunked(data[300:350]), want: "after 50 of 100 bytes", temporary: true},
		{name: "several parts", off: 300, h: answer(206, map[string]string{
			"Content-Type": "multipart/byteranges; boundary=x", "Content-Range": "bytes 300-399/1000"}, data[300:400]), want: "several parts"},
		{name: "compressed", off: 300, h: answer(206, map[string]string{
			"Content-Encoding": "gzip", "Content-Range": "bytes 300-399/1000"}, data[300:400]), want: "encoded as \"gzip\""},
		{name: "416", off: 300, h: answer(416, cr("bytes */200"), nil), want: "bytes */200"},
		{name: "404", off: 300, h: answer(404, nil, []byte(`{"errors":[{"code":"BLOB_UNKNOWN","message":"never heard of it"}]}`)),
			want: "404 Not Found: blob_unknown: never heard of it"},
		{name: "418", off: 300, h: answer(418, nil, []byte("short\nand  stout")), want: "short and stout"},
		{name: "429", off: 300, h: answer(429, nil, nil), want: "429", temporary: true},
		{name: "500", off: 300, h: answer(500, nil, nil), want: "500", temporary: true},
		{name: "501", off: 300, h: answer(501, nil, nil), want: "501"},
		{name: "503", off: 300, h: answer(503, nil, nil), want: "503", temporary: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNet()
			n.serve(t, "registry.test", c.h)
			b := open(t, n.client(t, registry.Config{}), "registry.test", data)
			p := make([]byte, 100)
			got, err := b.ReadAt(t.Context(), p, c.off)
			if c.want == "" {
				if err != nil || got != 100 || !bytes.Equal(p, data[c.off:c.off+100]) {
					t.Errorf("%d bytes, wrong, or %v", got, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v does not say %q", err, c.want)
			}
			if !strings.Contains(err.Error(), "registry.test/team/app@sha256:") {
				t.Errorf("error %v does not name the blob", err)
			}
			var re *registry.Error
			if !errors.As(err, &re) || re.Host != "registry.test" || re.Temporary() != c.temporary || blob.IsPermanent(err) == c.temporary {
				t.Errorf("error %#v, want temporary %v", re, c.temporary)
			}
		})
	}
}

// TestCutBody has the connection break in the middle of a body.
func TestCutBody(t *testing.T) {
	data := pattern(1000)
	n := newNet()
	tries := 0
	n.serve(t, "registry.test", func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries > 1 {
			content(data)(w, r)
			return
		}
		w.Header().Set("Content-Range", "bytes 300-899/1000")
		w.Header().Set("Content-Length", "600")
		w.WriteHeader(http.StatusPartialContent)
		w.Write(data[300:400])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	b := open(t, n.client(t, registry.Config{}), "registry.test", data)
	p := make([]byte, 600)
	got, err := b.ReadAt(t.Context(), p, 300)
	if !errors.Is(err, io.ErrUnexpectedEOF) || blob.IsPermanent(err) || got != 100 || !bytes.Equal(p[:got], data[300:400]) {
		t.Fatalf("%d bytes, %v", got, err)
	}
	tries = 0
	if _, err := blob.Retry(b, blob.RetryConfig{}).ReadAt(t.Context(), p, 300); err != nil || !bytes.Equal(p, data[300:900]) {
		t.Errorf("with retries: %v", err)
	}
}

// TestCutAfterBody has the connection break when all was delivered that was
// asked for, but not yet the end of a body of unknown length. Nothing is
// missing, so nobody else is asked.
func TestCutAfterBody(t *testing.T) {
	data := pattern(1000)
	n := newNet()
	host := n.serve(t, "registry.test", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", "bytes 300-899/1000")
		w.WriteHeader(http.StatusPartialContent)
		w.Write(data[300:900])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	b := open(t, n.client(t, registry.Config{}), "registry.test", data)
	p := make([]byte, 600)
	if got, err := b.ReadAt(t.Context(), p, 300); got != 600 || err != nil || !bytes.Equal(p, data[300:900]) {
		t.Errorf("%d bytes, %v", got, err)
	}
	if n := len(host.seen()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// TestWholeBlobAnswersAreCutOff checks that of a large blob answered whole, only
// what is needed is read.
func TestWholeBlobAnswersAreCutOff(t *testing.T) {
	data := pattern(8 << 20)
	n := newNet()
	sent := make(chan int, 1)
	n.serve(t, "registry.test", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		sum := 0
		for i := 0; i < len(data); i += 4096 {
			k, err := w.Write(data[i : i+4096])
			if sum += k; err != nil {
				break
			}
		}
		sent <- sum
	})
	b := open(t, n.client(t, registry.Config{}), "registry.test", data)
	p := make([]byte, 10)
	if _, err := b.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, data[:10]) {
		t.Fatal(err)
	}
	if got := <-sent; got > 1<<20 {
		t.Errorf("%d bytes sent for a read of 10", got)
	}
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-99/1000", "bytes 0-99/*", "bytes */1000", "BYTES 007-8/9", "bytes 1-0/2", "bytes -1-0/2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		start, end, total, err := registry.ParseContentRange(header)
		if err != nil {
			return
		}
		if start < 0 || end < start || total < -1 || total >= 0 && end >= total {
			t.Errorf("%q gives %d-%d/%d", header, start, end, total)
		}
		back := fmt.Sprintf("bytes %d-%d/%d", start, end, total)
		if total < 0 {
			back = fmt.Sprintf("bytes %d-%d/*", start, end)
		}
		if s, e, n, err := registry.ParseContentRange(back); err != nil || s != start || e != end || n != total {
			t.Errorf("%q became %q became %d-%d/%d, %v", header, back, s, e, n, err)
		}
	})
}
