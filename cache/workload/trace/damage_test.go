package trace_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// object returns a record of a URI.
func object(uri string) string { return fmt.Sprintf(`{"http.request.uri": %q}`, uri) }

// uris reads text, with bad records skipped, and returns the URIs and how many were bad.
func uris(t testing.TB, text []byte) (string, uint64) {
	t.Helper()
	dir := t.TempDir()
	f, err := trace.Open(trace.Config{Location: dir, Files: []string{write(t, dir, "t", text)}, SkipBad: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []string
	for _, r := range all(t, f) {
		got = append(got, r.URI)
	}
	return strings.Join(got, " "), f.Stats().Bad
}

// A log that a crash damaged is read on at the next line.
func TestDamage(t *testing.T) {
	a, b, c := object("a"), object("b"), object("c")
	long := `{"x": "` + strings.Repeat("y", 3<<20) + `"}`
	csv := "http.request.uri,http.response.status\n"
	for name, x := range map[string]struct {
		text, want string
		bad        uint64
	}{
		"cut in a string":    {a + "\n" + b[:20] + "\n" + c, "a c", 1},
		"cut after a key":    {a + "\n" + `{"http.request.uri":` + "\n" + c, "a c", 1},
		"cut after a comma":  {a + "\n" + `{"http.request.uri": "v2",` + "\n" + c, "a c", 1},
		"cut and appended":   {a + "\n" + b[:20] + b + "\n" + c, "a c", 1},
		"cut at the end":     {a + "\n" + b + "\n" + c[:20], "a b", 1},
		"cut array":          {"[" + a + ",\n" + b, "a b", 0},
		"no comma":           {"[" + a + "\n" + b + "]", "a b", 0},
		"zeros":              {a + "\n\x00\x00\x00\x00\n" + c, "a c", 1},
		"words":              {a + "\nhello\nworld\n" + b + "\nagain\n" + c, "a b c", 2},
		"nested in the cut":  {a + "\n" + `{"x": {"y": [1,` + "\n" + c, "a c", 1},
		"too long":           {a + "\n" + long + "\n" + c, "a c", 1},
		"wrong type, a line": {a + `{"http.request.uri": 5}` + c, "a c", 1},
		"not whole":          {a + `{"http.request.uri": "b", "http.response.written": 1.5}` + c, "a c", 1},
		"too large":          {a + `{"http.request.uri": "b", "http.response.written": 1e30}` + c, "a c", 1},
		"behind an array":    {"[" + a + "]\nend\n[" + c + "]", "a c", 1},
		"nonsense":           {a + `{"http.request.uri": "b", "http.request.duration": 1e300}` + c, "a c", 1},
		"no path":            {a + `{"http.request.uri": "/?x"}` + c, "a / c", 0},
		"no URI":             {a + `{"http.request.uri": ""}` + c, "a c", 1},
		"CSV quote":          {csv + "a,1\nb\"\"x,2\nc,3\n", "a c", 1},
		"CSV first quote":    {csv + "a,1\n\"b\" x,2\nc,3\n", "a c", 1},
		"CSV number":         {csv + "a,1\nb,NaN\nb,1e30\nb,x\nc,3\n", "a c", 3},
		"CSV short":          {csv + "a\n,\nc,3,4,5\n", "a c", 1},
		"lines":              {"v2/a\nv2 b\n\nv2/c\n", "v2/a v2/c", 1},
	} {
		if got, bad := uris(t, []byte(x.text)); got != x.want || bad != x.bad {
			t.Errorf("%s: %s with %d bad, want %s with %d", name, got, bad, x.want, x.bad)
		}
	}
}

// What programs that are not ours write is read as well.
func TestLenience(t *testing.T) {
	var frame [8 + 5]byte // a frame to be skipped
	binary.LittleEndian.PutUint32(frame[:], 0x184d2a51)
	binary.LittleEndian.PutUint32(frame[4:], 5)
	a, b := object("a"), object("b")
	for name, text := range map[string]string{
		"arrays":        "[" + a + "]\n[]\n [" + b + "]\n",
		"byte order":    "\ufeff[" + a + "," + b + "]",
		"CSV mark":      "\ufeffhttp.request.uri,x\r\na,\r\nb,\r\n",
		"skipped frame": string(frame[:]) + string(packings["zstd"](a+b)),
		"fractions":     `{"http.request.uri": "a", "http.response.status": 200.0, "http.response.written": 9576.0}` + b,
		"null":          `{"http.request.uri": "a", "http.request.useragent": null}` + b,
		"indented":      "[\n {\n  \"http.request.uri\":\n   \"a\"\n }\n,\n {\n  \"http.request.uri\": \"b\",\n  \"x\": {\n   \"y\": []}\n }\n]\n",
	} {
		if got, bad := uris(t, []byte(text)); got != "a b" || bad != 0 {
			t.Errorf("%s: %s with %d bad", name, got, bad)
		}
	}
}

// A compressed file that was cut is an error, not an end.
func TestCutFile(t *testing.T) {
	text := strings.Repeat(object("v2/a/blobs/b")+"\n", 5000)
	for name, pack := range packings {
		if name == "plain" {
			continue
		}
		packed := pack(text)
		r, err := trace.NewReader(bytes.NewReader(packed[:len(packed)-3]), "the file")
		for err == nil {
			_, err = r.Next()
		}
		if err == io.EOF || !strings.Contains(err.Error(), "the file") {
			t.Errorf("%s: %v", name, err)
		}
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, "http.request.uri,x\nv2/a,\n"+text)
	z.Close()
	r, err := trace.NewReader(bytes.NewReader(b.Bytes()[:b.Len()-3]), "the file")
	for err == nil {
		_, err = r.Next()
	}
	if err == io.EOF {
		t.Errorf("CSV: %v", err)
	}
}

// A quote too many in a CSV file does not hold the rest of it in memory.
func TestUnclosedQuote(t *testing.T) {
	text := "http.request.uri,x\nv2/a,\"\n" + strings.Repeat("v2/b,\n", 1<<20)
	r, err := trace.NewReader(strings.NewReader(text), "x")
	if err == nil {
		_, err = r.Next()
	}
	if err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("%v, want that a record is too long", err)
	}
}
