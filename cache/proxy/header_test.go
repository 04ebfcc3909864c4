package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cache/proxy"
)

func TestRange(t *testing.T) {
	for _, c := range []struct {
		header string
		want   string // of 100 bytes
	}{
		{"bytes=0-0", "0+1"}, {"bytes=0-99", "0+100"}, {"bytes=0-100", "0+100"}, {"bytes=10-", "10+90"},
		{"bytes=-10", "90+10"}, {"bytes=-1000", "0+100"}, {"BYTES=5-6", "5+2"}, {" bytes = 5-6 ", "ignored"},
		{"bytes=99-", "99+1"}, {"bytes=100-", "416"}, {"bytes=100-200", "416"}, {"bytes=-0", "416"},
		{"bytes=5-4", "ignored"}, {"bytes=", "ignored"}, {"bytes=-", "ignored"}, {"bytes=a-b", "ignored"},
		{"bytes=0-1,3-4", "ignored"}, {"bytes=+1-2", "ignored"}, {"bytes=1-+2", "ignored"}, {"bytes=--5", "ignored"},
		{"lines=0-1", "ignored"}, {"bytes", "ignored"}, {"bytes=0x1-2", "ignored"}, {"bytes=1 -2", "ignored"},
		{"bytes=99999999999999999999-", "ignored"}, {"bytes=0-99999999999999999999", "ignored"},
		{"bytes=4611686018427387903-", "416"}, {"bytes=-4611686018427387903", "0+100"}, {"bytes=0-9223372036854775807", "ignored"},
	} {
		off, n, satisfiable, ok := proxy.ParseRange(c.header, 100)
		got := fmt.Sprintf("%d+%d", off, n)
		switch {
		case !ok:
			got = "ignored"
		case !satisfiable:
			got = "416"
		}
		if got != c.want {
			t.Errorf("%q: %s, want %s", c.header, got, c.want)
		}
	}
}

// FuzzRange holds that a window lies in the blob, and that the upstream is asked
// for the same.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-1", "bytes=-5", "bytes=7-", "bytes=0-0,-1", "bytes=9223372036854775807-"} {
		f.Add(s, int64(100))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		size = max(size, 0)
		off, n, satisfiable, ok := proxy.ParseRange(header, size)
		if !ok {
			return
		}
		if strings.Contains(header, ",") {
			t.Fatalf("%q is one range", header)
		}
		if satisfiable && (off < 0 || n <= 0 || off > size-n) {
			t.Fatalf("%q of %d bytes is %d+%d", header, size, off, n)
		}
		again, _ := proxy.RewriteRange(header)
		off2, n2, satisfiable2, ok := proxy.ParseRange(again, size)
		if !ok || off2 != off || n2 != n || satisfiable2 != satisfiable {
			t.Fatalf("%q became %q", header, again)
		}
		if satisfiable {
			off3, n3, size3, ok := proxy.ParseContentRange(proxy.ContentRange(proxy.Window(off, n), size))
			if !ok || off3 != off || n3 != n || size3 != size {
				t.Fatalf("Content-Range of %d+%d/%d is not understood", off, n, size)
			}
		}
	})
}

func TestContentRange(t *testing.T) {
	for _, h := range []string{
		"", "bytes", "bytes 0-9", "bytes 0-9/", "bytes 0-9/*", "bytes */10", "bytes 0-10/10", "bytes 5-4/10", "bytes -1-4/10",
		"bytes 0-9/10 ", "bytes 0-9/+10", "items 0-9/10", "bytes=0-9/10", "bytes 0-9/99999999999999999999",
	} {
		if _, _, _, ok := proxy.ParseContentRange(h); ok {
			t.Errorf("%q is understood", h)
		}
	}
	if off, n, size, ok := proxy.ParseContentRange("bytes 3-9/10"); !ok || off != 3 || n != 7 || size != 10 {
		t.Errorf("bytes 3-9/10: %d+%d/%d", off, n, size)
	}
}

func TestPrecondition(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        int
	}{
		{"If-None-Match", `"x"`, 304}, {"If-None-Match", `W/"x"`, 304}, {"If-None-Match", `*`, 304},
		{"If-None-Match", `"a", "x"`, 304}, {"If-None-Match", `"a","b,x"`, 0}, {"If-None-Match", `x`, 0},
		{"If-None-Match", `"x`, 0}, {"If-None-Match", `"`, 0}, {"If-None-Match", ``, 0}, {"If-None-Match", `"X"`, 0},
		{"If-Match", `"x"`, 0}, {"If-Match", `*`, 0}, {"If-Match", `W/"x"`, 412}, {"If-Match", `"a"`, 412},
		{"If-Modified-Since", "Mon, 02 Jan 2006 15:04:05 GMT", 0},
	} {
		if got := proxy.Precondition(http.Header{c.name: {c.value}}, `"x"`); got != c.want {
			t.Errorf("%s: %s: %d, want %d", c.name, c.value, got, c.want)
		}
	}
}

func TestAccept(t *testing.T) {
	a := proxy.CanonicalAccept("application/b, application/A", "application/b ; q=0.5,, */*")
	b := proxy.CanonicalAccept("*/*,application/b;q=0.5", "application/a,application/b")
	if a != b || a != "*/*, application/a, application/b, application/b;q=0.5" {
		t.Errorf("%q, %q", a, b)
	}
	if proxy.CanonicalAccept() != "" {
		t.Error("no header is something")
	}
}

const (
	ociIndex    = "application/vnd.oci.image.index.v1+json"
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
)

// Media type confusion: the bytes are the same, what they are taken for is not.
func TestMediaType(t *testing.T) {
	for _, c := range []struct{ text, contentType, want string }{
		{`{"mediaType":"` + ociManifest + `","config":{}}`, ociManifest, ociManifest},
		{`{"mediaType":"` + ociManifest + `","config":{}}`, ociManifest + "; charset=utf-8", ociManifest},
		{`{"mediaType":"` + ociManifest + `","config":{}}`, "", ociManifest},
		{`{"mediaType":"` + ociManifest + `","config":{}}`, "application/json", ociManifest},
		{`{"config":{},"layers":[]}`, ociManifest, ociManifest},
		{`{"manifests":[]}`, ociIndex, ociIndex},
		{`{"mediaType":"application/x+json","blobs":[]}`, "application/x+json", "application/x+json"},
		{`{"manifests":null,"layers":[]}`, ociManifest, ociManifest},
		// Refused:
		{`{"mediaType":"` + ociManifest + `","config":{}}`, ociIndex, ""},
		{`{"mediaType":"` + ociIndex + `","manifests":[]}`, ociManifest, ""},
		{`{"manifests":[],"layers":[]}`, ociManifest, ""},
		{`{"manifests":[],"config":{}}`, ociIndex, ""},
		{`{"manifests":[]}`, ociManifest, ""},
		{`{"layers":[]}`, ociIndex, ""},
		{`{"fsLayers":[]}`, ociManifest, ""},
		{`{"layers":[]}`, "application/vnd.docker.distribution.manifest.v1+json", ""},
		{`{"layers":[]}`, "", ""},
		{`{"layers":[]}`, "text/plain", ""},
		{`{"layers":[]}`, ";;", ""},
		{`[]`, ociManifest, ""},
		{`<html>`, ociManifest, ""},
		{``, ociManifest, ""},
	} {
		got, err := proxy.TypedAs(c.text, c.contentType)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s as %q: %q, %v", c.text, c.contentType, got, err)
		}
	}
}

func TestNextPage(t *testing.T) {
	const path = "/v2/a/b/tags/list"
	for _, c := range []struct{ link, want string }{
		{`</v2/a/b/tags/list?n=2&last=x>; rel="next"`, "last=x&n=2"},
		{`<https://registry.example/v2/a/b/tags/list?next_page=gAA%3D&n=2>; rel=next`, "n=2&next_page=gAA%3D"},
		{`</prefix/v2/a/b/tags/list?last=x&ns=evil.example>; rel="next"`, "last=x"},
		{`</v2/a/b/tags/list?last=x>; rel="prev"`, ""},
		{`</v2/a/b/blobs/x?signature=1>; rel="next"`, ""},
		{`<:>; rel="next"`, ""},
		{``, ""},
	} {
		if got := proxy.NextPage(http.Header{"Link": {c.link}}, path); got != c.want {
			t.Errorf("%s: %q, want %q", c.link, got, c.want)
		}
	}
	if got := proxy.LinkTo(path, "last=x", "ghcr.io"); got != `</v2/a/b/tags/list?last=x&ns=ghcr.io>; rel="next"` {
		t.Error(got)
	}
}

func TestErrorBody(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{`{"errors":[{"code":"DENIED","message":"no","detail":{"a":1}}]}`, `{"errors":[{"code":"DENIED","message":"no","detail":{"a":1}}]}`},
		{`{"errors":[{"code":"X","message":"see https://s3.example/b?X-Amz-Signature=1"}]}`, `{"errors":[{"code":"X","message":"see https://s3.example/b"}]}`},
		{`{"errors":[{"code":"X","detail":"https:\/\/s3.example\/b?sig=1"}]}`, `{"errors":[{"code":"X"}]}`},
		{`{"errors":[{"code":"X","message":"https://s3.example/b?a=1\u0026sig=1 is gone"}]}`, `{"errors":[{"code":"X","message":"https://s3.example/b is gone"}]}`},
		{`<Error><StringToSign>secret</StringToSign></Error>`, ``},
		{`{"errors":[]}`, ``},
		{``, ``},
	} {
		if got := string(proxy.PassableBody([]byte(c.body))); got != c.want {
			t.Errorf("%s: %s", c.body, got)
		}
	}
}
