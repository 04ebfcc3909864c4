package main

import (
	"bytes"
	"encoding/json"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/tracelayer"
)

const traceVectors = "../../tracelayer/testdata/vectors/"

// copied copies a trace vector to a folder, so that it has a time.
func copied(t *testing.T, dir, name string, at time.Time) string {
	t.Helper()
	data, err := os.ReadFile(traceVectors + name)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
	return path
}

var recorded = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// inUTC runs a test in UTC, as times are printed.
func inUTC(t *testing.T) {
	local := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = local })
}

func TestTraceShow(t *testing.T) {
	inUTC(t)
	dir := t.TempDir()
	trace := copied(t, dir, "small-chain3.trace", recorded)
	layer := copied(t, dir, "small-chain3.accel-layer.tar", recorded)
	list := copied(t, dir, "priority.list", recorded)
	clean := func(s string) string { return strings.ReplaceAll(s, dir+"/", "") }

	r := reprise(t, "trace", "show", trace)
	if r.code != 0 {
		t.Fatal(r.err)
	}
	golden(t, "trace-show.txt", clean(r.out))
	if of := reprise(t, "trace", "show", layer); strings.ReplaceAll(of.out, layer, trace) != r.out {
		t.Errorf("of the layer %s, %s", of.out, of.err)
	}
	golden(t, "trace-show-records.txt", clean(reprise(t, "trace", "show", "-r", trace).out))
	golden(t, "trace-show-list.txt", clean(reprise(t, "trace", "show", list).out))

	var report struct {
		Reads    int
		Distinct int64 `json:"distinct_bytes"`
		Records  []struct {
			Total int64 `json:"cumulative_bytes"`
		}
	}
	r = reprise(t, "trace", "show", "--json", "--records", trace)
	if err := json.Unmarshal([]byte(r.out), &report); err != nil {
		t.Fatal(err)
	}
	if report.Reads != 39 || len(report.Records) != 39 || report.Records[38].Total != report.Distinct || report.Distinct != 624640 {
		t.Errorf("%+v", report)
	}
}

// TestTraceShowUnpacked shows what containerd makes of a trace layer: a folder,
// here with a plan.
func TestTraceShowUnpacked(t *testing.T) {
	dir := t.TempDir()
	if err := os.Rename(copied(t, dir, "small-chain3.trace", recorded), filepath.Join(dir, tracelayer.SlotName)); err != nil {
		t.Fatal(err)
	}
	data := []byte("twelve bytes")
	plan := &tracelayer.Plan{
		Layers:  []tracelayer.PlanLayer{{Digest: digest.FromString("bottom"), Size: 1000}, {Digest: digest.FromString("top"), Size: 2000}},
		Extents: []tracelayer.Extent{{Layer: 1, Size: 12, Stored: 12, Sum: [32]byte(digestBytes(data))}, {Size: 500}},
	}
	text, err := plan.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{tracelayer.PlanName: text, tracelayer.DataName: data} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := reprise(t, "trace", "show", dir)
	for _, want := range []string{"2 ranges, 512 B of the layers, with 12 B of data", "12 B of 2.0 KiB", "500 B of 1000 B"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("%s%s\ndoes not say %q", r.out, r.err, want)
		}
	}
}

func digestBytes(p []byte) []byte {
	h := digest.SHA256.Hash()
	h.Write(p)
	return h.Sum(nil)
}

func TestTracePlot(t *testing.T) {
	dir := t.TempDir()
	trace := copied(t, dir, "small-chain3.trace", recorded)
	svg, picture := filepath.Join(dir, "p.svg"), filepath.Join(dir, "p.png")
	for _, file := range []string{svg, picture} {
		if r := reprise(t, "trace", "show", "--plot", file, trace); r.code != 0 || r.out != "" {
			t.Errorf("%s: %s, %s", file, r.out, r.err)
		}
	}
	text, err := os.ReadFile(svg)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"layer 0: 15 reads", "layer 1: 13 reads", "layer 2: 11 reads", "read so far", "600 KiB"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("no %q in the plot", want)
		}
	}
	f, err := os.Open(picture)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if img, err := png.DecodeConfig(f); err != nil || img.Width != 900 {
		t.Errorf("%+v, %v", img, err)
	}
	for want, args := range map[string][]string{
		"exists":              {trace},
		"nothing to plot":     {"--force", traceVectors + "priority.list"},
		"needs one trace":     {},
		"needs one":           {trace, trace},
		"no such file":        {"--force", filepath.Join(dir, "none")},
		"neither a trace nor": {"--force", traceVectors + "bad-magic.trace"},
		"its header says 384": {"--force", traceVectors + "truncated.trace"},
		"not an OCI layout":   {"--force", t.TempDir()},
	} {
		r := reprise(t, append([]string{"trace", "show", "--plot", svg}, args...)...)
		if r.code == 0 || !strings.Contains(r.err, want) {
			t.Errorf("%v: %d, %s, want %q", args, r.code, r.err, want)
		}
	}
	if r := reprise(t, "trace", "show", "--plot", "p.gif", trace); r.code != 2 {
		t.Errorf("p.gif: %d, %s", r.code, r.err)
	}
	if now, err := os.ReadFile(svg); err != nil || !bytes.Equal(now, text) {
		t.Errorf("the plot was replaced, or %v", err)
	}
	if names, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(names) != 0 {
		t.Errorf("left behind %v, %v", names, err)
	}
}

func TestTraceMerge(t *testing.T) {
	inUTC(t)
	dir := t.TempDir()
	old := copied(t, dir, "medium-apply.trace", recorded)
	young := copied(t, dir, "small-chain3.trace", recorded.Add(7*24*time.Hour))
	out := filepath.Join(dir, "out.trace")
	// Columns are as wide as the name of the folder makes them.
	columns := regexp.MustCompile("  +")
	clean := func(s string) string { return columns.ReplaceAllString(strings.ReplaceAll(s, dir+"/", ""), "  ") }

	r := reprise(t, "trace", "merge", "-o", out, young, old)
	if r.code != 0 {
		t.Fatal(r.err)
	}
	golden(t, "trace-merge.txt", clean(r.out))
	r = reprise(t, "trace", "merge", "-f", "-o", out, "--by", "order", "--half-life", "-1s", young, old)
	golden(t, "trace-merge-order.txt", clean(r.out))
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	merged, err := tracelayer.Decode(data)
	if err != nil || len(merged) == 0 || merged[0] != (tracelayer.Record{Op: tracelayer.Read, Count: 4096}) {
		t.Errorf("%v, %v", merged, err)
	}
	for want, args := range map[string][]string{
		"exists":             {young},
		"is a list of files": {"-f", young, traceVectors + "priority.list"},
		"needs the traces":   {},
		"half-life 0":        {"--half-life", "0", young},
		"is not within":      {"--share", "-1", young},
		"more than all":      {"--share", "2", young},
		"has to be":          {"--by", "size", young},
		"no such file":       {"-f", filepath.Join(dir, "none")},
		"enough of them":     {"-f", "--share", "1", traceOf(t, dir, 0), traceOf(t, dir, 512)},
	} {
		r := reprise(t, append([]string{"trace", "merge", "-o", out}, args...)...)
		if r.code == 0 || !strings.Contains(r.err, want) {
			t.Errorf("%v: %d, %s, want %q", args, r.code, r.err, want)
		}
	}
	if now, err := os.ReadFile(out); err != nil || !bytes.Equal(now, data) {
		t.Errorf("the trace was replaced, or %v", err)
	}
}

// traceOf writes a trace of one read.
func traceOf(t *testing.T, dir string, off int64) string {
	t.Helper()
	path := filepath.Join(dir, "one-"+time.Duration(off).String())
	text := tracelayer.Trace{{Op: tracelayer.Read, Off: off, Count: 512}}.Encode()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
