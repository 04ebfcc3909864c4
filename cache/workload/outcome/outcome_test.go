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
		if i == 1 { // as after a second
			time.Sleep(1100 * time.Millisecond)
		}
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
