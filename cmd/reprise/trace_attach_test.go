package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/registry/registrytest"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

// TestTraceOfGoldenImage takes the trace off an image that overlaybd's tools
// made, and attaches it to the image without it, in a registry.
func TestTraceOfGoldenImage(t *testing.T) {
	golden, dir, host := images(t), t.TempDir(), registrytest.Start(t, "")
	with, without := golden+"/busybox-obd-trace", golden+"/busybox-obd"
	digestOf := func(layout string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(layout, "index.json"))
		var index struct{ Manifests []struct{ Digest string } }
		if err == nil {
			err = json.Unmarshal(text, &index)
		}
		if err != nil || len(index.Manifests) == 0 {
			t.Fatal(err)
		}
		return index.Manifests[0].Digest
	}
	want := digestOf(without)
	run := func(args ...string) string {
		t.Helper()
		args = append([]string{args[0], args[1], "--hosts-dir=" + dir}, args[2:]...)
		r := reprise(t, args...)
		if r.code != exitOK {
			t.Fatalf("%q: %+v", args, r)
		}
		return r.out
	}
	if out := run("trace", "strip", with, host+"/app:1"); !strings.Contains(out, "@"+want) || !strings.Contains(out, "without trace layer sha256:0b3f3977") {
		t.Errorf("%s", out)
	}
	if out := run("trace", "strip", host+"/app:1", dir+"/again"); !strings.Contains(out, "no trace layer, copied as it is") || digestOf(dir+"/again") != want {
		t.Errorf("%s", out)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "1000000000")
	var first struct {
		Manifest, Artifact string
		Reads              int
		Data               int64 `json:"data_bytes"`
	}
	out := run("trace", "attach", "--json", "--platform=linux/amd64", "--workload=shell", "--from", with, host+"/app:1")
	if err := json.Unmarshal([]byte(out), &first); err != nil || first.Manifest != want || first.Reads != 149 || first.Data == 0 {
		t.Errorf("%s, %v", out, err)
	}
	// The same from a file, into a layout.
	layer := filepath.Join(with, "blobs/sha256/0b3f39779228e549c196d5ee4325a8cd51d281c0a479154f744802dfdfbb321e")
	if out := run("trace", "attach", "--platform=linux/amd64", "--workload=shell", dir+"/again", layer); !strings.Contains(out, first.Artifact+" for shell") {
		t.Errorf("%s, want %s", out, first.Artifact)
	}
	list := dir + "/list"
	if err := os.WriteFile(list, []byte("/etc/motd\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := run("trace", "attach", "--platform=linux/amd64", "--no-data", host+"/app:1", list); !strings.Contains(out, "1 file,") || !strings.Contains(out, "without data") {
		t.Errorf("%s", out)
	}
	for _, image := range []string{host + "/app:1", dir + "/again"} {
		out := run("inspect", "--platform=linux/amd64", image)
		if !strings.Contains(out, "ATTACHED TRACE") || !strings.Contains(out, "  shell     2001-09-09T01:46:40Z  ") || !strings.Contains(out, want) {
			t.Errorf("%s", out)
		}
		if n := strings.Count(out, "2001-09-09T01:46:40Z"); n != map[bool]int{true: 2, false: 1}[strings.HasPrefix(image, host)] {
			t.Errorf("%d attached traces:\n%s", n, out)
		}
	}
	if out := run("inspect", "--platform=linux/amd64", with); !strings.Contains(out, "5.5 KiB, 149 reads\n") {
		t.Errorf("%s", out)
	}
	// From where it is attached to another repository, the same artifact.
	run("trace", "strip", host+"/app:1", host+"/copy:1")
	if out := run("trace", "attach", "--platform=linux/amd64", "--workload=shell", "--from", host+"/app:1", host+"/copy:1"); !strings.Contains(out, first.Artifact+" for shell") {
		t.Errorf("%s, want %s", out, first.Artifact)
	}
	if out := run("trace", "attach", "--platform=linux/amd64", "--workload=other", "--from", host+"/app:1", host+"/copy:1"); !strings.Contains(out, "1 file,") {
		t.Errorf("%s", out)
	}
	// It is none of the other image with the same content.
	args := []string{"trace", "attach", "--from", with, "--hosts-dir=" + dir, "--platform=linux/amd64", dir + "/zstd"}
	run("trace", "strip", golden+"/busybox-obd-zstd", dir+"/zstd")
	if r := reprise(t, args...); r.code != exitFailed || !strings.Contains(r.err, "the trace is of another image: layer 0 is sha256:a5191556") {
		t.Errorf("%+v", r)
	}
	if r := reprise(t, append(args, "--rebuild")...); r.code != exitOK {
		t.Errorf("%+v", r)
	}
}

func TestTraceUsage(t *testing.T) {
	dir := t.TempDir()
	trace := dir + "/trace"
	if err := os.WriteFile(trace, tracelayer.Trace{{Op: tracelayer.Read, Count: 512}}.Encode(), 0o644); err != nil {
		t.Fatal(err)
	}
	r := newRegistry(t)
	r.tags["1"] = r.image(t, layers(t)...).Digest
	r.ordinary(t, "plain", "one")
	for _, c := range []struct {
		args []string
		code int
		part string
	}{
		{[]string{"trace", "strip", r.ref("1")}, exitUsage, "needs a source and a destination"},
		{[]string{"trace", "strip", r.ref("1"), "x@sha256:" + strings.Repeat("0", 64)}, exitUsage, "not a digest"},
		{[]string{"trace", "strip", r.ref("none"), dir + "/to"}, exitFailed, "404"},
		{[]string{"trace", "strip", r.ref("1"), trace}, exitFailed, "exists already"},
		{[]string{"trace", "strip", "--temp-dir=" + dir + "/none", r.ref("1"), dir + "/to"}, exitFailed, "temporary directory"},
		{[]string{"trace", "attach"}, exitUsage, "needs an image"},
		{[]string{"trace", "attach", r.ref("1")}, exitUsage, "needs a trace"},
		{[]string{"trace", "attach", "--from=x", r.ref("1"), trace}, exitUsage, "not both"},
		{[]string{"trace", "attach", "--from", r.ref("1"), r.ref("1")}, exitFailed, "has no trace layer"},
		{[]string{"trace", "attach", r.ref("1"), dir + "/none"}, exitFailed, "no such file"},
		{[]string{"trace", "attach", r.ref("plain"), trace}, exitFailed, "convert it first"},
	} {
		args := append(c.args[:2:2], append([]string{"--hosts-dir=" + dir}, c.args[2:]...)...)
		if got := reprise(t, args...); got.code != c.code || !strings.Contains(got.err, c.part) {
			t.Errorf("%q: %+v, want %d and %q", c.args, got, c.code, c.part)
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "today")
	if got := reprise(t, "trace", "attach", r.ref("1"), trace); got.code != exitUsage || !strings.Contains(got.err, "SOURCE_DATE_EPOCH") {
		t.Errorf("%+v", got)
	}
}

// TestTraceLayers looks at images with a trace layer of three members, on top and
// below another layer: neither is a part of the device.
func TestTraceLayers(t *testing.T) {
	r, all := newRegistry(t), layers(t)
	plan := tracelayer.Plan{Extents: []tracelayer.Extent{{Size: 512, Sum: sha256.Sum256(all[0][:512]), Stored: 512}}}
	for _, b := range all {
		plan.Layers = append(plan.Layers, tracelayer.PlanLayer{Digest: digest.FromBytes(b), Size: int64(len(b))})
	}
	text, err := plan.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var trace bytes.Buffer
	info, err := tracelayer.WriteLayer(&trace, tracelayer.Contents{
		Slot: tracelayer.Trace{{Op: tracelayer.Read, Count: 4096}}.Encode(), Plan: text, Data: bytes.NewReader(all[0][:512]), DataSize: 512,
	})
	if err != nil {
		t.Fatal(err)
	}
	add := func(tag string, place int) {
		t.Helper()
		var m ocispec.Manifest
		if err := json.Unmarshal(r.blobs[r.image(t, all...).Digest], &m); err != nil {
			t.Fatal(err)
		}
		d := r.add(ocispec.MediaTypeImageLayer, trace.Bytes())
		d.Annotations = labels.TraceBlob{Blob: d.Digest, BlobSize: d.Size, FSType: "ext4", Plan: info.Plan}.Annotations()
		m.Layers = slices.Insert(m.Layers, place, d)
		r.tags[tag] = r.document(t, ocispec.MediaTypeImageManifest, m).Digest
	}
	add("top", 3)
	add("stale", 1)
	hosts := "--hosts-dir=" + t.TempDir()
	for tag, want := range map[string]struct{ inspect, check string }{
		"top":   {", 1 read, a plan of 512 B in 1 range with 512 B of data", "0 problems, 0 warnings"},
		"stale": {"stale trace", "0 problems, 1 warning"},
	} {
		if got := reprise(t, "inspect", hosts, r.ref(tag)); got.code != exitOK || !strings.Contains(got.out, want.inspect) {
			t.Errorf("%s: %+v", tag, got)
		}
		if got := reprise(t, "check", hosts, r.ref(tag)); got.code != exitOK || !strings.Contains(got.out, want.check) {
			t.Errorf("%s: %+v", tag, got)
		}
		path := filepath.Join(t.TempDir(), "disk")
		if got := reprise(t, "dump", hosts, r.ref(tag), "-o", path); got.code != exitOK {
			t.Errorf("%s: %+v", tag, got)
		}
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, expected(t)) {
			t.Errorf("%s: the device differs, %v", tag, err)
		}
		layout := t.TempDir()
		if got := reprise(t, "convert", hosts, "--cache-dir=", r.ref(tag), layout); got.code == exitOK {
			t.Errorf("%s: converted with a config that has no diff IDs: %+v", tag, got)
		}
	}
	// Tables are made for the layers of the device only.
	dir := t.TempDir()
	if err := os.CopyFS(dir+"/l", os.DirFS(images(t)+"/busybox-obd-trace")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir+"/l/blobs/sha256", 0o755); err != nil {
		t.Fatal(err)
	}
	if got := reprise(t, "attach-chunks", dir+"/l"); got.code != exitOK || !strings.Contains(got.out, "with 3 tables") {
		t.Errorf("%+v", got)
	}
}
