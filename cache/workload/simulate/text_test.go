package simulate_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	units "github.com/docker/go-units"

	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

var update = flag.Bool("update", false, "write what tests find to testdata")

// small is a report with something of everything.
func small(t *testing.T) *simulate.Report {
	t.Helper()
	d := stream(1, 5000, 300, false)
	p, err := simulate.NewPrefetcher(simulate.Prefetch{Pushed: time.Hour, Fetched: 90 * time.Minute, Identity: simulate.ByLayer})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range pushesAndPulls(1, 1000, true) {
		p.Add(r)
	}
	r := run(t, d, simulate.Config{
		Policies: []string{"lru", "sieve", simulate.Belady}, Sizes: []simulate.Size{{Share: 0.05}, {Bytes: 10_000}},
		GC:      simulate.GC{Manifests: simulate.Ages{MaxAge: 2 * time.Hour}},
		Levels:  []simulate.Levels{{Memory: simulate.Size{Share: 0.02}, Disk: simulate.Size{Share: 0.2}}},
		PerNode: []simulate.Size{{Share: 0.05}},
		Curve:   simulate.CurveConfig{Exact: true, Sample: 100, Points: 20},
	})
	r.Prefetch = p.Cells()
	return r
}

// golden compares what write writes with a file of testdata.
func golden(t *testing.T, name string, write func(*bytes.Buffer) error) {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("%s is now\n%s", name, b.Bytes())
	}
}

func TestReportForms(t *testing.T) {
	r := small(t)
	golden(t, "report.txt", func(b *bytes.Buffer) error { return r.WriteText(b) })
	golden(t, "report.csv", func(b *bytes.Buffer) error { return r.WriteCSV(b) })
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back simulate.Report
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(back)
	if err != nil || !bytes.Equal(text, again) {
		t.Errorf("%s\nread and written is\n%s: %v", text, again, err)
	}
}

// A report says when it could not be written.
func TestReportErrors(t *testing.T) {
	r := small(t)
	advice := recommend(t, stream(1, 2000, 100, false), simulate.Limits{Disk: 1 << 20})
	for name, write := range map[string]func(w *filled) error{
		"text": func(w *filled) error { return r.WriteText(w) }, "CSV": func(w *filled) error { return r.WriteCSV(w) },
		"advice": func(w *filled) error { return advice.WriteText(w) },
	} {
		for room := range 3 {
			if err := write(&filled{room: room * 60}); !errors.Is(err, errFull) {
				t.Errorf("%s into %d bytes: %v", name, room*60, err)
			}
		}
	}
}

// A sample without an object says nothing, and what was not simulated is said.
func TestReportGaps(t *testing.T) {
	r := run(t, stream(1, 100, 10, false), simulate.Config{Curve: simulate.CurveConfig{Exact: true, Shards: []float64{1e-9}}})
	if c := r.Curves[1]; len(c.Points) > 0 || c.Objects > 0 || c.MeanError != 0 {
		t.Errorf("a curve of no objects is %+v", c)
	}
	r.Cells = []simulate.Cell{{Policy: "belady", Size: simulate.Size{Bytes: 5}, Error: "it cannot be"}}
	var b bytes.Buffer
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"no object", "belady at 5B was not simulated: it cannot be"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}

var errFull = errors.New("full")

type filled struct{ room int }

func (f *filled) Write(p []byte) (int, error) {
	if f.room -= len(p); f.room < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"5%", " 0.1 %", "10GiB", "5000 objects", "100%", "101%", "-1%", "0", "NaN%", "1e400%", "-3 objects", "%", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := simulate.ParseSize(text, units.RAMInBytes)
		if err != nil {
			return
		}
		n := 0
		for _, set := range []bool{s.Share > 0, s.Bytes > 0, s.Objects > 0} {
			if set {
				n++
			}
		}
		if n != 1 || !(s.Share <= 1) || s.Bytes < 0 || s.Objects < 0 {
			t.Errorf("%q is %+v", text, s)
		}
		back, err := simulate.ParseSize(s.String(), units.RAMInBytes)
		if off := back.Share - s.Share; err != nil || back.Bytes != s.Bytes || back.Objects != s.Objects || off > 1e-5*s.Share || off < -1e-5*s.Share {
			t.Errorf("%q is %+v, and that written and read %+v: %v", text, s, back, err)
		}
	})
}

// What cannot be simulated is an error that says so.
func TestRunErrors(t *testing.T) {
	sized, unit := stream(1, 100, 10, false), stream(1, 100, 10, true)
	untimed := stream(1, 100, 10, false)
	untimed.Timed = false
	lru := []string{"lru"}
	for _, c := range []struct {
		d    *simulate.Decoded
		cfg  simulate.Config
		says string
	}{
		{sized, simulate.Config{Policies: []string{"best"}, Sizes: []simulate.Size{{Share: 1}}}, "belady"},
		{sized, simulate.Config{Policies: lru, Sizes: []simulate.Size{{Objects: 3}}}, "unit"},
		{unit, simulate.Config{Policies: lru, Sizes: []simulate.Size{{Bytes: 3}}}, "unit"},
		{unit, simulate.Config{Policies: lru, Sizes: []simulate.Size{{Objects: 3}}, GC: simulate.GC{Disk: true}}, "sizes"},
		{untimed, simulate.Config{Policies: lru, GC: simulate.GC{Layers: simulate.Ages{MaxAge: 1}}}, "times"},
		{sized, simulate.Config{Curve: simulate.CurveConfig{Shards: []float64{0.1, 0}}}, "rate"},
		{sized, simulate.Config{Curve: simulate.CurveConfig{Shards: []float64{1.5}}}, "rate"},
		{sized, simulate.Config{Curve: simulate.CurveConfig{Sample: -1}}, "-1 objects"},
		{sized, simulate.Config{PerNode: []simulate.Size{{Objects: 3}}}, "unit"},
		{sized, simulate.Config{Levels: []simulate.Levels{{Memory: simulate.Size{Share: 1}, Disk: simulate.Size{Objects: 1}}}}, "unit"},
		{sized, simulate.Config{Levels: []simulate.Levels{{Memory: simulate.Size{Share: 1}, Disk: simulate.Size{Share: 1}, Policy: "best"}}}, "best"},
	} {
		if _, err := simulate.Run(t.Context(), c.d, c.cfg); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want something of %s", c.cfg, err, c.says)
		}
	}
	if _, err := simulate.Decode(t.Context(), trace.Of(trace.Request{Method: "POST", URI: "v2/a/blobs/uploads/"}), simulate.Scope{}); err == nil {
		t.Error("nothing that counts is no error")
	}
}
