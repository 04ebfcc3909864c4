package trace_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// FuzzJSON compares the records of JSON lines with what encoding/json makes of them.
func FuzzJSON(f *testing.F) {
	f.Add(forms["lines"])
	f.Add(`{"http.request.uri": "v2", "http.request.duration": 1.5e-3, "http.response.status": -0}`)
	f.Add(`{"http.request.uri": "v2", "http.request.duration": 01}{"http.request.uri": "v2", "http.response.status": +5}`)
	f.Add(`{"http.request.uri": "v2\u0041é\n", "HOST": "x", "host": "y"}`)
	f.Fuzz(func(t *testing.T, text string) {
		if !strings.HasPrefix(text, "{") {
			return
		}
		r, err := trace.NewReader(strings.NewReader(text), "x")
		if err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(strings.NewReader(text))
		for {
			var rec trace.Record
			if d.Decode(&rec) != nil {
				return // commas, arrays and fractions of zero are read by us alone
			}
			want, wantErr := rec.Request()
			got, err := r.Next()
			if fmt.Sprint(got) != fmt.Sprint(want) || (err == nil) != (wantErr == nil) {
				t.Fatalf("got %+v, %v, want %+v, %v", got, err, want, wantErr)
			}
			if err != nil {
				return
			}
		}
	})
}

// FuzzReader reads anything: it ends, and what it gives is written and read again as
// it is.
func FuzzReader(f *testing.F) {
	for _, text := range forms {
		for _, pack := range packings {
			f.Add(pack(text))
		}
	}
	f.Add([]byte("v2/a/blobs/b\nv2\n"))
	f.Add([]byte("http.request.uri\n\"a\" b,v2\n"))
	f.Add([]byte(`{"http.request.uri": "v2", "http.request.range": "bytes=9223372036854775806-", "http.response.written": 5}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		r, err := trace.NewReader(bytes.NewReader(content), "x")
		if err != nil {
			return
		}
		defer r.Close()
		var first []trace.Request
		var b bytes.Buffer
		w := trace.NewWriter(&b)
		for len(first) < 1000 {
			x, err := r.Next()
			if err != nil {
				break
			}
			if x.URI == "" || x.Method == "" || x.Duration < 0 || x.Size < -1 || x.Off < 0 || x.Len < 0 || x.Off+x.Len < 0 {
				t.Fatalf("%+v", x)
			}
			if year := x.Time.Year(); year < 1 || year > 9999 {
				continue // is not written
			}
			if err := w.Write(x.Record()); err != nil {
				t.Fatal(err)
			}
			first = append(first, x)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if len(first) == 0 {
			return
		}
		again, err := trace.NewReader(&b, "again")
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range first {
			got, err := again.Next()
			if err != nil || got.URI != strings.ToValidUTF8(x.URI, "\ufffd") && got.URI == "" || got.Off != x.Off || got.Len != x.Len || got.Size != max(0, x.Size) || got.Status != x.Status {
				t.Fatalf("%+v became %+v, %v", x, got, err)
			}
		}
		if _, err := again.Next(); err != io.EOF {
			t.Fatalf("more than was written: %v", err)
		}
	})
}

// FuzzParse takes any URI apart without losing a part of it.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"v2", "v2/a/b/blobs/c", "v2/a/blobs/uploads/x", "v2/a/manifests/blobs/uploads", "v2//blobs/c", "/v2/a/tags/list?n=5", "v2//tags/list"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		x := trace.Parse(uri)
		path, _, _ := strings.Cut(uri, "?")
		path = strings.Trim(path, "/")
		want := map[trace.Kind]string{
			trace.Ping: "v2", trace.Manifest: "v2/" + x.Repository + "/manifests/" + x.Reference,
			trace.Blob: "v2/" + x.Repository + "/blobs/" + x.Reference, trace.Tags: "v2/" + x.Repository + "/tags/list",
			trace.Upload:    strings.TrimSuffix("v2/"+x.Repository+"/blobs/uploads/"+x.Reference, "/"),
			trace.Referrers: "v2/" + x.Repository + "/referrers/" + x.Reference, trace.Other: path,
		}[x.Kind]
		if want != path {
			t.Errorf("%q is %+v", uri, x)
		}
		if x.Kind > trace.Ping && x.Repository == "" {
			t.Errorf("%q has no repository: %+v", uri, x)
		}
	})
}
