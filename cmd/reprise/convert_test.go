package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/registry/registrytest"
)

// ordinary adds an image of ordinary layers, each with one file, and tags it.
func (r *fakeRegistry) ordinary(t *testing.T, tag string, files ...string) ocispec.Descriptor {
	t.Helper()
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers"}}
	for _, name := range files {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		data := bytes.Repeat([]byte(name), 1000)
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		w.Write(data)
		w.Close()
		m.Layers = append(m.Layers, r.add(ocispec.MediaTypeImageLayer, b.Bytes()))
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(b.Bytes()))
	}
	m.Config = r.document(t, ocispec.MediaTypeImageConfig, config)
	d := r.document(t, ocispec.MediaTypeImageManifest, m)
	r.tags[tag] = d.Digest
	return d
}

func TestConvert(t *testing.T) {
	r := newRegistry(t)
	r.ordinary(t, "1", "one", "two")
	dir := t.TempDir()
	common := []string{"convert", "--hosts-dir=" + dir, "--cache-dir=" + dir + "/cache", "--temp-dir=" + dir, "--vsize=1g"}
	with := func(args ...string) result { return reprise(t, append(common, args...)...) }

	got := with("--json", r.ref("1"), dir+"/layout:new")
	var report struct {
		Destination, Digest, Tagged string
		Images                      []struct{ Layers []struct{ Stored string } }
	}
	if err := json.Unmarshal([]byte(got.out), &report); err != nil || len(report.Images) != 1 || len(report.Images[0].Layers) != 2 ||
		report.Tagged != report.Digest || report.Destination != dir+"/layout:new" {
		t.Fatalf("%v: %+v", err, got)
	}
	got = with("--progress", r.ref("1"), "oci-archive:"+dir+"/archive:new")
	if got.code != exitOK || !strings.Contains(got.out, report.Digest) || !strings.Contains(got.out, "2 of 2 layers converted") || !strings.Contains(got.err, "uploaded") {
		t.Errorf("%+v", got)
	}
	if got = with(r.ref("1"), dir+"/layout:again"); got.code != exitOK || !strings.Contains(got.out, "0 of 2 layers converted, 0 B transferred") {
		t.Errorf("%+v", got)
	}
	if got = with("--oci", r.ref("1"), dir+"/kept"); got.code != exitOK || !strings.Contains(got.out, "a referrer of "+r.tags["1"].String()) {
		t.Errorf("%+v", got)
	}
	for _, image := range []string{dir + "/layout:new", dir + "/archive"} {
		if got := reprise(t, "check", image); got.code != exitOK || !strings.Contains(got.out, "0 problems, 0 warnings") {
			t.Errorf("%s: %+v", image, got)
		}
	}
	got = with("-f", "--compression=zstd", "--block-size=16k", dir+"/kept:latest", dir+"/archive:new")
	if got.code != exitOK || strings.Contains(got.out, report.Digest) {
		t.Errorf("%+v", got)
	}
	if got := reprise(t, "inspect", dir+"/archive"); !strings.Contains(got.out, "zstd 16.0 KiB") {
		t.Errorf("%+v", got)
	}
}

func TestConvertUsage(t *testing.T) {
	dir := t.TempDir()
	r := newRegistry(t)
	r.ordinary(t, "1", "one")
	for _, c := range []struct {
		args []string
		code int
		part string
	}{
		{[]string{"convert", "x"}, exitUsage, "needs a source and a destination"},
		{[]string{"convert", "x", "y", "z"}, exitUsage, "needs a source and a destination"},
		{[]string{"convert", "--compression=gzip", "x", "y"}, exitUsage, "neither lz4 nor zstd"},
		{[]string{"convert", "--vsize=big", "x", "y"}, exitUsage, "--vsize"},
		{[]string{"convert", "--block-size=64k", r.ref("1"), dir}, exitUsage, "block size 65536"},
		{[]string{"convert", "--block-size=5000", r.ref("1"), dir}, exitUsage, "block size 5000"},
		{[]string{"convert", "--vsize=5000", r.ref("1"), dir}, exitUsage, "virtual size of 5000 bytes"},
		{[]string{"convert", "--vsize=5000", "--oci", r.ref("1"), dir}, exitUsage, "virtual size of 5000 bytes"},
		{[]string{"convert", "--workers=-1", r.ref("1"), dir}, exitUsage, "negative"},
		{[]string{"convert", r.ref("1"), "x@sha256:" + strings.Repeat("0", 64)}, exitUsage, "not a digest"},
		{[]string{"convert", r.ref("none"), dir}, exitFailed, "404"},
		{[]string{"convert", r.ref("1"), "127.0.0.1:1/app:1"}, exitFailed, "looking at the destination"},
		{[]string{"convert", "./none", dir}, exitFailed, "./none is no image: no such file or directory"},
		{[]string{"convert", "oci:none", dir}, exitFailed, "none is no image: no such file or directory"},
		{[]string{"inspect", "oci:none"}, exitFailed, "none is no image: no such file or directory"},
		{[]string{"convert", r.ref("1"), "main.go"}, exitFailed, "exists already"},
		{[]string{"convert", "--temp-dir=" + dir + "/none", r.ref("1"), dir}, exitFailed, "--temp-dir"},
		{[]string{"attach-chunks"}, exitUsage, "needs an image"},
		{[]string{"attach-chunks", r.ref("1")}, exitFailed, "convert it first"},
	} {
		if got := reprise(t, c.args...); got.code != c.code || !strings.Contains(got.err, c.part) {
			t.Errorf("%q: %+v, want %d and %q", c.args, got, c.code, c.part)
		}
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Errorf("left %v, %v", list, err)
	}
}

// TestConvertGuess names a destination that was meant otherwise.
func TestConvertGuess(t *testing.T) {
	r := newRegistry(t)
	r.ordinary(t, "1", "one")
	dir := t.TempDir()
	hosts := filepath.Join(dir, "docker.io")
	if err := errors.Join(os.Mkdir(hosts, 0o755), os.WriteFile(filepath.Join(hosts, "hosts.toml"), fmt.Appendf(nil, "server = %q\n", r.URL), 0o644)); err != nil {
		t.Fatal(err)
	}
	const hint = "(for a layout write oci:"
	for arg, want := range map[string]string{
		"out": hint + "out)", "team/out:1": hint + "team/out:1)", "docker://out": "", "docker.io/out": "", r.ref("none"): "",
	} {
		got := reprise(t, "convert", "--hosts-dir="+dir, "--cache-dir=", r.ref("1"), arg)
		if got.code != exitFailed || !strings.Contains(got.err, want) || want == "" && strings.Contains(got.err, hint) {
			t.Errorf("%s: %+v, want %q", arg, got, want)
		}
	}
	help := reprise(t, "convert", "--help").out
	if !strings.Contains(help, "starts with / or .") || strings.Contains(help, "(default: 0)") {
		t.Errorf("%s", help)
	}
}

// TestConvertInterrupted interrupts the command while it waits for a layer.
func TestConvertInterrupted(t *testing.T) {
	r := newRegistry(t)
	r.ordinary(t, "1", "one", "two")
	waiting, release := make(chan struct{}), make(chan struct{})
	last := r.layerOf(t, "1", 1)
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, last.String()) && req.Method == http.MethodGet {
			close(waiting)
			<-release
		}
		r.ServeHTTP(w, req)
	}))
	defer slow.Close()
	defer close(release)
	dir := t.TempDir()
	temp := filepath.Join(dir, "temp")
	if err := os.Mkdir(temp, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "convert", "--hosts-dir="+dir, "--cache-dir="+dir+"/cache", "--temp-dir="+temp,
		strings.TrimPrefix(slow.URL, "http://")+"/app:1", dir+"/image.tar")
	cmd.Env = append(os.Environ(), runAsMain+"=1")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-waiting
	if list, _ := os.ReadDir(temp); len(list) == 0 {
		t.Error("no temporary files, so this test shows nothing")
	}
	cmd.Process.Signal(syscall.SIGINT)
	err := cmd.Wait()
	if cmd.ProcessState.ExitCode() != exitInterrupted || !strings.Contains(log.String(), "interrupted") {
		t.Errorf("%v, %s", err, log.String())
	}
	if list, err := os.ReadDir(temp); err != nil || len(list) > 0 {
		t.Errorf("temporary files are left: %v, %v", list, err)
	}
	list, err := os.ReadDir(dir)
	for _, e := range list {
		if e.Name() != "temp" && e.Name() != "cache" {
			t.Errorf("%s is left", e.Name())
		}
	}
	if err != nil {
		t.Error(err)
	}
}

// TestConvertAsOrdinaryUser compares what root and somebody else make.
func TestConvertAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	r := newRegistry(t)
	r.ordinary(t, "1", "one", "two")
	dir, err := os.MkdirTemp("", "ordinary")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "reprise")
	text, err := os.ReadFile(os.Args[0])
	if err = errors.Join(err, os.WriteFile(program, text, 0o755), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	digests := map[string]bool{}
	for _, as := range []*syscall.Credential{{Uid: 0, Gid: 0}, {Uid: 65534, Gid: 65534}} {
		name := fmt.Sprint(as.Uid)
		cmd := exec.Command(program, "convert", "--json", "--cache-dir=", "--temp-dir="+dir, "--hosts-dir="+dir, r.ref("1"), filepath.Join(dir, name))
		cmd.Env = []string{runAsMain + "=1", "TZ=Asia/Tokyo", "HOME=/nonexistent", "GOMAXPROCS=" + fmt.Sprint(1+as.Uid%3)}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
		out, err := cmd.Output()
		var report struct{ Digest string }
		if err = errors.Join(err, json.Unmarshal(out, &report)); err != nil {
			t.Fatalf("as %s: %v, %s", name, err, out)
		}
		digests[report.Digest] = true
	}
	if len(digests) != 1 {
		t.Errorf("two users made %v", digests)
	}
}

// layerOf returns the digest of layer i of a tag.
func (r *fakeRegistry) layerOf(t *testing.T, tag string, i int) digest.Digest {
	t.Helper()
	var m ocispec.Manifest
	if err := json.Unmarshal(r.blobs[r.tags[tag]], &m); err != nil {
		t.Fatal(err)
	}
	return m.Layers[i].Digest
}

func TestAttachChunks(t *testing.T) {
	r := newRegistry(t)
	r.tags["1"] = r.image(t, layers(t)...).Digest
	dir := t.TempDir()
	// An overlaybd image is copied by convert, and gets its tables there.
	if got := reprise(t, "convert", "--hosts-dir="+dir, r.ref("1"), dir+"/image"); got.code != exitOK || !strings.Contains(got.err, "copied as it is") {
		t.Fatalf("%+v", got)
	}
	got := reprise(t, "attach-chunks", dir+"/image")
	if got.code != exitOK || !strings.HasPrefix(got.out, r.tags["1"].String()+": sha256:") || !strings.Contains(got.out, "with 3 tables") {
		t.Errorf("%+v", got)
	}
	if again := reprise(t, "attach-chunks", "--json", dir+"/image:latest"); again.code != exitOK || !strings.Contains(again.out, fmt.Sprintf("%q: %q", "digest", r.tags["1"])) {
		t.Errorf("%+v", again)
	}
	if got := reprise(t, "convert", "--hosts-dir="+dir, dir+"/image", dir+"/image.tar"); got.code != exitOK {
		t.Errorf("%+v", got)
	}
	if got := reprise(t, "attach-chunks", dir+"/image.tar"); got.code != exitUsage || !strings.Contains(got.err, "archive") {
		t.Errorf("%+v", got)
	}
}

// TestConvertReferrer converts and attaches twice, in a real registry.
func TestConvertReferrer(t *testing.T) {
	r := newRegistry(t)
	d := r.ordinary(t, "1", "one", "two")
	ref := registrytest.Start(t, "") + "/app:1"
	args := []string{"convert", "--oci", "--cache-dir=", "--hosts-dir=" + t.TempDir(), r.ref("1"), ref}
	first := reprise(t, args...)
	if first.code != exitOK || !strings.HasPrefix(first.out, ref+"@"+d.Digest.String()) || !strings.Contains(first.out, "2 of 2 layers converted") {
		t.Fatalf("%+v", first)
	}
	again := reprise(t, args...)
	first.out, _, _ = strings.Cut(first.out, "2 of 2 layers converted")
	if again.code != exitOK || !strings.HasPrefix(again.out, first.out+"0 of 2 layers converted, 0 B transferred") {
		t.Errorf("%+v, want %s", again, first.out)
	}
}
