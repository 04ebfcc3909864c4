package trace_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// all returns the rest of r.
func all(t testing.TB, r trace.Reader) (out []trace.Request) {
	t.Helper()
	for {
		x, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, x)
	}
}

// forms has one trace of two requests in all forms there are.
var forms = map[string]string{
	"array": `[{"host": "dc118836", "http.request.duration": 1.5, "http.request.method": "GET", "http.request.remoteaddr": "0ee76ffa", "http.request.uri": "v2/4715bf52/437c49db/blobs/93054319", "http.request.useragent": "docker/17.03.1-ce", "http.response.status": 200, "http.response.written": 9576, "id": "ed29d65dbd", "timestamp": "2017-06-20T02:41:18.399Z"},
 {"host": "dc118836", "http.request.duration": 0.25, "http.request.method": "HEAD", "http.request.remoteaddr": "0ee76ffa", "http.request.uri": "v2/4715bf52/437c49db/manifests/93054320", "http.request.useragent": "a \"quoted\" agent}", "http.response.status": 404, "http.response.written": 0, "id": "ed29d65dbe", "timestamp": "2017-06-20T02:41:19Z"}]`,
	"lines": `{"host":"dc118836","http.request.duration":1.5,"http.request.method":"GET","http.request.remoteaddr":"0ee76ffa","http.request.uri":"v2/4715bf52/437c49db/blobs/93054319","http.request.useragent":"","http.response.status":200,"http.response.written":9576,"id":"ed29d65dbd","timestamp":"2017-06-20T02:41:18.399Z","more":{"of":[1]}}
{"http.request.method":"head","host":"dc118836","http.request.duration":0.25,"http.request.remoteaddr":"0ee76ffa","http.request.uri":"/v2/4715bf52/437c49db/manifests/93054320?ns=x","http.response.status":404,"http.response.written":0,"timestamp":"2017-06-20T02:41:19.000Z"}
`,
	"csv": `,Unnamed: 0,host,http.request.duration,http.request.method,http.request.remoteaddr,http.request.uri,http.request.useragent,http.response.status,http.response.written,id,timestamp
1,1,dc118836,1.5,GET,0ee76ffa,v2/4715bf52/437c49db/blobs/93054319,"an, agent",200,9576.0,ed29d65dbd,2017-06-20 02:41:18.399
2,2,dc118836,0.25,HEAD,0ee76ffa,v2/4715bf52/437c49db/manifests/93054320,,404.0,0,x,2017-06-20 02:41:19
`,
}

var wanted = []trace.Request{
	{Time: time.Date(2017, 6, 20, 2, 41, 18, 399e6, time.UTC), Duration: 1500 * time.Millisecond, Method: "GET",
		URI: "v2/4715bf52/437c49db/blobs/93054319", Host: "dc118836", Client: "0ee76ffa", Status: 200, Size: 9576},
	{Delay: 601 * time.Millisecond, Time: time.Date(2017, 6, 20, 2, 41, 19, 0, time.UTC), Duration: 250 * time.Millisecond, Method: "HEAD",
		URI: "v2/4715bf52/437c49db/manifests/93054320", Host: "dc118836", Client: "0ee76ffa", Status: 404},
}

// packings are the compressions a file can have.
var packings = map[string]func(string) []byte{
	"plain": func(s string) []byte { return []byte(s) },
	"gzip": func(s string) []byte {
		var b bytes.Buffer
		for _, part := range []string{s[:len(s)/2], s[len(s)/2:]} { // two members
			z := gzip.NewWriter(&b)
			io.WriteString(z, part)
			z.Close()
		}
		return b.Bytes()
	},
	"zstd": func(s string) []byte {
		var b bytes.Buffer
		for _, part := range []string{s[:len(s)/2], s[len(s)/2:]} {
			z, _ := zstd.NewWriter(&b)
			io.WriteString(z, part)
			z.Close()
		}
		return b.Bytes()
	},
}

// write makes a file and returns its name.
func write(t testing.TB, dir, name string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestForms(t *testing.T) {
	for form, text := range forms {
		for packing, pack := range packings {
			t.Run(form+"/"+packing, func(t *testing.T) {
				dir := t.TempDir()
				f, err := trace.Open(trace.Config{Location: dir, Files: []string{write(t, dir, "t", pack(text))}})
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				got := all(t, f)
				if fmt.Sprint(got) != fmt.Sprint(wanted) {
					t.Errorf("got\n%+v\nwant\n%+v", got, wanted)
				}
				if s := f.Stats(); s.Records != 2 || s.Bytes != s.Of || s.Late != 0 {
					t.Errorf("%+v", s)
				}
			})
		}
	}
}

// What cannot be read is an error that names file and place, or is counted.
func TestBadRecords(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "nothing in it"},
		{"   \n", "nothing in it"},
		{"hello\n", "not a JSON array"},
		{"<html>", "not a JSON array"},
		{`[{"http.request.uri": "v2", "timestamp": "yesterday"}]`, `record 1 (line 1): timestamp "yesterday"`},
		{`[{"http.request.uri": "v2"},` + "\n" + ` {"http.request.uri": 5}]`, "record 2 (line 2)"},
		{`{"host": "x"}`, "http.request.uri is missing"},
		{`[{"http.request.uri": "v2"`, "ends within a record"},
		{`[{"http.request.uri": "v2"}] x`, "after the end of the array"},
		{`[5]`, "where a record should begin"},
		{"http.request.uri,http.response.status\nv2,ok\n", `line 2: http.response.status: "ok"`},
		{"a,http.request.uri\nb,v2,\"\n", "line 2"},
		{"v2/a/blobs/b\nv2 x\n", "line 2"},
		{`{"http.request.uri": "v2", "http.request.range": "bytes=5-4"}`, "http.request.range"},
	} {
		dir := t.TempDir()
		f, err := trace.Open(trace.Config{Location: dir, Files: []string{write(t, dir, "t", []byte(c.text))}})
		if err == nil {
			for err == nil {
				_, err = f.Next()
			}
			f.Close()
		}
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), filepath.Join(dir, "t")) {
			t.Errorf("%q: %v, want an error with %q", c.text, err, c.want)
		}
	}
	dir := t.TempDir()
	text := `{"http.request.uri": "v2"}{"host": "x"}{"http.request.uri": 5}{"http.request.uri": "v2/a/blobs/b"}`
	f, err := trace.Open(trace.Config{Location: dir, Files: []string{write(t, dir, "t", []byte(text))}, SkipBad: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := all(t, f); len(got) != 2 || f.Stats().Bad != 2 {
		t.Errorf("%v, %+v", got, f.Stats())
	}
	if _, err := trace.Open(trace.Config{Location: dir, Files: []string{"none"}}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// line returns a record at a time in seconds.
func line(uri string, at float64) string {
	return fmt.Sprintf(`{"http.request.uri":%q,"timestamp":%q}`, uri, time.Unix(0, 0).Add(time.Duration(at*1e9)).UTC().Format(trace.TimestampFormat))
}

func TestMerge(t *testing.T) {
	dir := t.TempDir()
	a := write(t, dir, "a", []byte(line("a1", 5)+line("a2", 9)+line("a3", 8)+line("a4", 30)))
	b := write(t, dir, "b", []byte(line("b1", 3)+line("b2", 8.5)))
	c := write(t, dir, "c", []byte(line("c1", 20)+line("c2", 40)))
	e := write(t, dir, "e", []byte("[]"))
	open := func(window int) *trace.Files {
		f, err := trace.Open(trace.Config{Location: dir, Files: []string{a, c, e, b}, Window: window})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	uris := func(f *trace.Files) (s string) {
		for _, r := range all(t, f) {
			s += fmt.Sprintf("%s@%g ", r.URI, r.Delay.Seconds())
		}
		return s
	}
	f := open(0)
	if got, want := uris(f), "b1@0 a1@2 a3@5 b2@5.5 a2@6 c1@17 a4@27 c2@37 "; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// Without room to put them into order, what is late is given at the time reached.
	f = open(1)
	if got, want := uris(f), "b1@0 a1@2 b2@5.5 a2@6 a3@6 c1@17 a4@27 c2@37 "; got != want || f.Stats().Late != 1 {
		t.Errorf("got %s, want %s, %+v", got, want, f.Stats())
	}
	write(t, dir, "u", []byte("v2\n"))
	if _, err := trace.Open(trace.Config{Location: dir, Files: []string{"a", "u"}}); err == nil || !strings.Contains(err.Error(), "has times") {
		t.Errorf("with times and without: %v", err)
	}
}

func TestLimitAndLoop(t *testing.T) {
	at := func(s ...float64) (out []trace.Request) {
		for i, s := range s {
			out = append(out, trace.Request{URI: fmt.Sprint(i), Delay: time.Duration(s * 1e9)})
		}
		return out
	}
	delays := func(r trace.Reader) (out []float64) {
		for _, r := range all(t, r) {
			out = append(out, r.Delay.Seconds())
		}
		return out
	}
	for _, c := range []struct {
		limit trace.Limit
		want  []float64
	}{
		{trace.Limit{}, []float64{0, 1, 2, 3}},
		{trace.Limit{Within: 2 * time.Second}, []float64{0, 1, 2}}, // inclusive
		{trace.Limit{Requests: 2}, []float64{0, 1}},
		{trace.Limit{Requests: 9}, []float64{0, 1, 2, 3}},
	} {
		r := c.limit.Reader(trace.Of(at(0, 1, 2, 3)...))
		if got := delays(r); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%+v: %v, want %v", c.limit, got, c.want)
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("%+v: after the end: %v", c.limit, err)
		}
	}
	open := func() (trace.Reader, error) { return trace.Of(at(0, 1, 4)...), nil }
	if got, want := delays(trace.Loop(open, 3)), []float64{0, 1, 4, 6, 7, 10, 12, 13, 16}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("three rounds: %v, want %v", got, want)
	}
	if got := delays(trace.Limit{Requests: 100}.Reader(trace.Loop(open, 0))); len(got) != 100 || got[99] != 198 {
		t.Errorf("for ever: %v", got)
	}
	if got := delays(trace.Loop(func() (trace.Reader, error) { return trace.Of(), nil }, 0)); got != nil {
		t.Errorf("nothing for ever: %v", got)
	}
}

// closer counts how often it is closed.
type closer struct {
	trace.Reader
	closed *int
}

func (c closer) Close() error { *c.closed++; return nil }

func TestLoopCloses(t *testing.T) {
	opened, closed := 0, 0
	l := trace.Loop(func() (trace.Reader, error) {
		opened++
		return closer{trace.Of(trace.Request{}, trace.Request{}), &closed}, nil
	}, 0)
	for range 5 {
		if _, err := l.Next(); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := l.(io.Closer).Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Next(); err != io.EOF || opened != 3 || closed != 3 {
		t.Errorf("%d opened, %d closed, then %v", opened, closed, err)
	}
}

func TestParse(t *testing.T) {
	for uri, want := range map[string]trace.Target{
		"v2":                           {Kind: trace.Ping},
		"/v2/":                         {Kind: trace.Ping},
		"v2/a/b/blobs/c":               {Kind: trace.Blob, Repository: "a/b", Reference: "c"},
		"v2/blobs/blobs/c":             {Kind: trace.Blob, Repository: "blobs", Reference: "c"},
		"v2/a/manifests/blobs/x":       {Kind: trace.Blob, Repository: "a/manifests", Reference: "x"},
		"v2/a/manifests/latest?ns=x":   {Kind: trace.Manifest, Repository: "a", Reference: "latest"},
		"v2/a/blobs/uploads/":          {Kind: trace.Upload, Repository: "a"},
		"v2/a/blobs/uploads/93/x":      {Kind: trace.Upload, Repository: "a", Reference: "93/x"},
		"v2/a/tags/list":               {Kind: trace.Tags, Repository: "a"},
		"v2/a/referrers/sha256:0":      {Kind: trace.Referrers, Repository: "a", Reference: "sha256:0"},
		"v1/a/blobs/c":                 {},
		"v2/blobs/c":                   {},
		"v2/a/b/c":                     {},
		"":                             {},
		"v2x/a/blobs/c":                {},
		"v2/my-blobs-repo/manifests/1": {Kind: trace.Manifest, Repository: "my-blobs-repo", Reference: "1"},
	} {
		if got := trace.Parse(uri); got != want {
			t.Errorf("%q is %+v, want %+v", uri, got, want)
		}
	}
}

// What is written is read again.
func TestWriter(t *testing.T) {
	for name, writer := range map[string]func(io.Writer) *trace.Writer{"lines": trace.NewWriter, "array": trace.NewArrayWriter} {
		for n := range 3 {
			var b bytes.Buffer
			w := writer(&b)
			for _, r := range wanted[:n] {
				if err := w.Write(r.Record()); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if n == 0 && name == "lines" {
				continue
			}
			r, err := trace.NewReader(&b, "x")
			if err != nil {
				t.Fatal(err)
			}
			got := all(t, r)
			for i := range got {
				got[i].Delay = wanted[i].Delay
			}
			if fmt.Sprint(got) != fmt.Sprint(append([]trace.Request(nil), wanted[:n]...)) {
				t.Errorf("%s of %d: %v", name, n, got)
			}
		}
	}
}

// recorded are real requests, which are not part of the source tree.
const recorded = "../../../../shared/data"

func TestRecorded(t *testing.T) {
	if _, err := os.Stat(recorded); err != nil {
		t.Skip("no recorded requests beside the source tree: ", err)
	}
	for name, want := range map[string]int{"ibm-dal09-blob-gets-999.csv": 999, "ibm-registry-gets-725k.csv.zst": 725242} {
		f, err := trace.Open(trace.Config{Location: recorded, Files: []string{name}})
		if err != nil {
			t.Fatal(err)
		}
		kinds := map[trace.Kind]int{}
		n := 0
		for {
			r, err := f.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			n++
			kinds[r.Target().Kind]++
		}
		t.Logf("%s: %d requests, %v, %+v", name, n, kinds, f.Stats())
		if n != want || kinds[trace.Other] > 0 || f.Stats().Bytes != f.Stats().Of {
			t.Errorf("%s: %d requests, want %d", name, n, want)
		}
		f.Close()
	}
}

func BenchmarkJSON(b *testing.B) {
	text := []byte(strings.Repeat(forms["lines"][:strings.Index(forms["lines"], `,"more"`)]+"}\n", 1000))
	b.SetBytes(int64(len(text)) / 1000)
	b.ReportAllocs()
	for n := 0; n < b.N; n += 1000 {
		r, err := trace.NewReader(bytes.NewReader(text), "x")
		if err != nil {
			b.Fatal(err)
		}
		for {
			if _, err := r.Next(); err != nil {
				break
			}
		}
	}
}
