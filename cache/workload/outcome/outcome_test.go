package outcome_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/outcome"
)

func TestMap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "interm.json")
	if _, err := outcome.ReadMap(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	for _, m := range []outcome.Map{
		{},
		{"v2/a/blobs/b": digest.FromString("x").String(), "v2/a/manifests/\"<&>": outcome.Bad, "v2": outcome.Bad},
	} {
		if err := m.Write(path); err != nil {
			t.Fatal(err)
		}
		got, err := outcome.ReadMap(path)
		if err != nil || !maps.Equal(got, m) {
			t.Errorf("%v became %v, %v", m, got, err)
		}
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Errorf("there are %v", files)
	}
	m := outcome.Map{"a": "bad", "b": digest.FromString("x").String()}
	for uri, want := range map[string]bool{"a": false, "b": true, "c": false} {
		if _, ok := m.Digest(uri); ok != want {
			t.Errorf("%s: %t", uri, ok)
		}
	}
}

// A link stays one, and so does what is no file.
func TestMapReplaces(t *testing.T) {
	dir := t.TempDir()
	file, link, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	m := outcome.Map{"v2/a/blobs/b": outcome.Bad}
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(file, link), unix.Mkfifo(pipe, 0o600), m.Write(link)); err != nil {
		t.Fatal(err)
	}
	got, err := outcome.ReadMap(file)
	if to, _ := os.Readlink(link); err != nil || !maps.Equal(got, m) || to != file {
		t.Errorf("%v, %v behind the link, which leads to %q", got, err, to)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	for _, path := range []string{pipe, dir} {
		if err := m.Write(path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestBadMaps(t *testing.T) {
	for text, want := range map[string]string{
		"":                    "no JSON object",
		"null":                "no JSON object",
		"[]":                  "no JSON object",
		`{"a": 1}`:            "no JSON object of strings",
		`{"v2/x": "sha256:"}`: "v2/x",
		`{"v2/x": ""}`:        "v2/x",
		`{"a": "bad"} {}`:     "more behind",
		`{"a": "bad"`:         "no JSON object",
	} {
		if _, err := outcome.ParseMap([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", text, err, want)
		}
	}
}

// original is what the original's scripts read of an element.
type original struct {
	Time     *float64
	Duration *float64
	OnTime   *string
	Size     *int64
}

// A results file is a JSON array after each second and at the end, whatever is in it.
func TestResults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	read := func() (out []original) {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &out); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		for _, x := range out {
			if x.Time == nil || x.Duration == nil || x.OnTime == nil || x.Size == nil {
				t.Fatalf("an element has not all fields:\n%s", text)
			}
		}
		return out
	}
	r, err := outcome.Create(path, []string{"localhost:5000"}, 10*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(); len(got) != 0 {
		t.Errorf("%v", got)
	}
	sent := time.Unix(1000, 5e8)
	for i, x := range []load.Result{
		{Op: load.Get, Sent: sent, Service: 2 * time.Second, Bytes: 17, Status: 200},
		{Op: load.Push, Sent: sent, Late: time.Second, Registry: 7},
		{Op: load.Head, Intended: sent, Cause: load.CauseConnect, Err: "no \"connection\""},
	} {
		if err := r.Add(x); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			if err := r.Flush(); err != nil {
				t.Fatal(err)
			}
			if got := read(); len(got) != 2 {
				t.Errorf("%d are there after two", len(got))
			}
		}
	}
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := read(); len(got) != 3 {
		t.Errorf("%d are there before the end", len(got))
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range read() {
		got = append(got, fmt.Sprintf("%g %g %s %d", *x.Time, *x.Duration, *x.OnTime, *x.Size))
	}
	if want := "[1000.5 2 yes 17 1000.5 0 no 0 1000.5 0 failed 0]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %v", got, want)
	}
}

// Whatever registries and traces say, a result is read as it was.
func TestResultText(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	for _, text := range []string{"", "plain", "a b/c:d~", `"`, `\`, "\n\t\x00\x1f", "<&>", "\u00e9\u2028", "\x7f", "{},]"} {
		r, err := outcome.Create(path, []string{text}, 0)
		if err != nil {
			t.Fatal(err)
		}
		sent := time.Unix(1234567890, 123456000)
		err = r.Add(load.Result{
			Op: load.Head, Sent: sent, Service: 7 * time.Nanosecond, Latency: 1234567 * time.Hour, Bytes: 1 << 60, Status: 299,
			URI: text, Outcome: text, Cause: load.CauseCut, Err: text,
		})
		if err = errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		written, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var got []outcome.Result
		if err := json.Unmarshal(written, &got); err != nil {
			t.Fatalf("%q: %v\n%s", text, err, written)
		}
		want := outcome.Result{
			Time: 1234567890.123456, Duration: 7e-9, OnTime: outcome.Failed, Size: 1 << 60, URI: text, Method: "HEAD", Status: 299,
			Latency: 1234567 * 3600, Registry: text, Cache: text, Error: text,
		}
		if len(got) != 1 || got[0] != want {
			t.Errorf("%q: read %+v, want %+v", text, got, want)
		}
	}
}

// However large the results are and whenever they are written, the file is an array.
func TestResultsGrow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	r, err := outcome.Create(path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	for i := range 100 {
		if err := r.Add(load.Result{URI: fmt.Sprint(i), Err: strings.Repeat("x", 1000*i), Cause: load.CauseCut}); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var out []outcome.Result
		if err := json.Unmarshal(text, &out); err != nil || len(out) < last || len(out) > i+1 {
			t.Fatalf("after %d there are %d: %v", i+1, len(out), err)
		}
		for j, x := range out {
			if x.URI != fmt.Sprint(j) || len(x.Error) != 1000*j || x.Time != 0 {
				t.Fatalf("%d is %s with %d bytes", j, x.URI, len(x.Error))
			}
		}
		last = len(out)
	}
	if last < 50 {
		t.Errorf("%d of 100 are written: nothing is until the end", last)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// A disk that is full leaves the results that it had room for.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a tmpfs needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "results.json")
	r, err := outcome.Create(path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	added := 0
	for ; err == nil && added < 1000; added++ {
		err = r.Add(load.Result{URI: fmt.Sprint(added), Err: strings.Repeat("x", 9000)})
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("after %d: %v", added, err)
	}
	for _, again := range []error{r.Add(load.Result{}), r.Close()} {
		if !errors.Is(again, unix.ENOSPC) {
			t.Errorf("after it was full: %v", again)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []outcome.Result
	if err := json.Unmarshal(text, &out); err != nil || len(out) < 50 {
		t.Fatalf("%d results of %d: %v", len(out), added, err)
	}
	// The map that is there stays when a larger one has no room.
	path = filepath.Join(dir, "map")
	small := outcome.Map{"v2/a/blobs/b": outcome.Bad}
	if err := small.Write(path); err != nil {
		t.Fatal(err)
	}
	large := outcome.Map{}
	for i := range 20000 {
		large[fmt.Sprintf("v2/a/blobs/%d", i)] = digest.FromString("x").String()
	}
	if err := large.Write(path); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a map that has no room: %v", err)
	}
	if got, err := outcome.ReadMap(path); err != nil || !maps.Equal(got, small) {
		t.Errorf("%v, %v", got, err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 2 {
		t.Errorf("there are %v", files)
	}
}

func BenchmarkResults(b *testing.B) {
	r, err := outcome.Create(filepath.Join(b.TempDir(), "r"), []string{"localhost:5000"}, 10*time.Millisecond)
	if err != nil {
		b.Fatal(err)
	}
	x := load.Result{Op: load.Get, URI: "v2/4715bf52/437c49db/blobs/93054319", Status: 200, Bytes: 9576, Sent: time.Now(), Service: 12345678, Latency: 12345699, Outcome: "hit"}
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Add(x); err != nil {
			b.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
}

func FuzzMap(f *testing.F) {
	f.Add([]byte(`{"v2/a/blobs/b": "bad"}`))
	f.Add([]byte(`{"v2/a/blobs/b": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}`))
	path := filepath.Join(f.TempDir(), "m")
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := outcome.ParseMap(text)
		if err != nil {
			return
		}
		if err := m.Write(path); err != nil {
			t.Fatal(err)
		}
		if again, err := outcome.ReadMap(path); err != nil || !maps.Equal(again, m) {
			t.Errorf("%q became %v, %v", text, again, err)
		}
	})
}
