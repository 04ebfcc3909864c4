package main

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/go-units"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

// ok runs a command line that must work and returns what it printed.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	r := reprise(t, args...)
	if r.code != exitOK {
		t.Fatalf("%v: %+v", args, r)
	}
	return r.out
}

// noise returns n bytes.
func noise(n int) []byte {
	p := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = rng.Read(p) // never fails
	return p
}

// writeLayer writes to a layer made by a command, and leaves it as it is then.
func writeLayer(t *testing.T, files lsmt.UpperFiles, writes map[int64][]byte) {
	t.Helper()
	u, err := lsmt.OpenUpper(t.Context(), files, nil)
	if err != nil {
		t.Fatal(err)
	}
	for off, p := range writes {
		if _, err := u.WriteAt(t.Context(), p, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
}

// checkLayer opens layer files as a stack and compares what was written.
func checkLayer(t *testing.T, size int64, writes map[int64][]byte, names ...string) {
	t.Helper()
	var layers []blob.ReaderAt
	for _, name := range names {
		layers = append(layers, blobtest.Bytes(readFile(t, name)))
	}
	disk, err := backstore.Open(t.Context(), layers)
	if err != nil {
		t.Fatal(err)
	}
	if disk.Size() != size {
		t.Errorf("device of %d bytes, want %d", disk.Size(), size)
	}
	for off, want := range writes {
		got := make([]byte, len(want))
		if err := blob.ReadFull(t.Context(), disk, got, off); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes at %d differ, %v", len(want), off, err)
		}
	}
}

// TestLayerLife makes layers of both kinds, also of more than 2 TiB, grows, writes,
// commits, seals, commits again, and merges them, by commands alone but for the
// writing. The blob is the same whichever way it was made.
func TestLayerLife(t *testing.T) {
	for _, kind := range []string{layerAppend, layerSparse} {
		for size, grown := range map[string]string{"1GiB": "2GiB", "3TiB": "5TiB"} {
			t.Run(kind+" "+size, func(t *testing.T) { layerLife(t, kind, size, grown) })
		}
	}
}

func layerLife(t *testing.T, kind, size, grown string) {
	dir := t.TempDir()
	data, index, first, second := dir+"/data", dir+"/index", dir+"/first", dir+"/second"
	files := lsmt.UpperFiles{Data: data, Index: index}
	r := reprise(t, "layer", "create", "--layer", kind, "--vsize", size, "-m", "mine", data, index)
	if strings.Contains(r.err, "file too large") {
		t.Skip(r.err)
	}
	if large := size == "3TiB"; r.code != exitOK || strings.Contains(r.err, "2 TiB") != large {
		t.Fatalf("%+v", r)
	}
	if r := reprise(t, "layer", "create", data, index); r.code != exitFailed || !strings.Contains(r.err, "exists") {
		t.Errorf("created over a layer: %+v", r)
	}
	ok(t, "layer", "grow", "--vsize", grown, data, index)
	end, err := units.RAMInBytes(grown)
	if err != nil {
		t.Fatal(err)
	}
	writes := map[int64][]byte{0: noise(4096), end - 1<<20: noise(1 << 20), end / 2: noise(128 << 10)}
	writeLayer(t, files, writes)
	if r := reprise(t, "layer", "grow", "--vsize", size, data, index); r.code != exitUsage || !strings.Contains(r.err, "smaller") {
		t.Errorf("made it smaller: %+v", r)
	}
	ok(t, "layer", "commit", "--uuid", vectorUUID+"42", "-o", first, data, index)
	checkLayer(t, end, writes, first)
	ok(t, "layer", "seal", data, index)
	ok(t, "layer", "seal", data, index) // again, without effect
	ok(t, "layer", "commit", "--uuid", vectorUUID+"42", "-o", second, data)
	if !bytes.Equal(readFile(t, first), readFile(t, second)) {
		t.Error("the sealed layer commits to another blob than the writable one")
	}
	// On top comes one of another size, which counts.
	over := map[int64][]byte{4096: noise(512)}
	topData, topIndex := dir+"/top.data", dir+"/top.index"
	ok(t, "layer", "create", "--vsize", "4GiB", topData, topIndex)
	writeLayer(t, lsmt.UpperFiles{Data: topData, Index: topIndex}, over)
	ok(t, "layer", "commit", "-o", dir+"/top", "--compression", "none", topData, topIndex)
	ok(t, "layer", "merge", "-o", dir+"/merged", "--compression", "lz4", "--block-size", "16k", first, dir+"/top")
	checkLayer(t, 4<<30, map[int64][]byte{0: writes[0], 4096: over[4096]}, dir+"/merged")
	ok(t, "check", dir+"/merged")
}

// TestLayerForms writes a layer in each form and reads it back.
func TestLayerForms(t *testing.T) {
	dir := t.TempDir()
	data, index := vectors+"small-chain3/L0.data", vectors+"small-chain3/L0.index"
	want := stream(t, readFile(t, vectors+"small-chain3/L0.raw.lsmt"))
	for _, compression := range []string{"none", "lz4", "zstd"} {
		for _, form := range [][]string{{}, {"--no-chunks"}, {"--no-tar"}} {
			to := filepath.Join(dir, "out")
			args := append([]string{"layer", "commit", "--json", "-f", "-o", to, "--uuid", vectorUUID + "20", "--compression", compression, data, index}, form...)
			var doc struct {
				Digest      string
				Bytes       int64
				Annotations map[string]string
			}
			if err := json.Unmarshal([]byte(ok(t, args...)), &doc); err != nil {
				t.Fatal(err)
			}
			raw := readFile(t, to)
			if got := stream(t, raw); !bytes.Equal(got, want) {
				t.Errorf("%v: another stream", args)
			}
			if doc.Digest != blobtest.Bytes(raw).Descriptor().Digest.String() || doc.Bytes != int64(len(raw)) {
				t.Errorf("%v: %+v, not the digest and size of the file", args, doc)
			}
			d := describe(t, raw)
			_, table, err := backstore.FindChunks(t.Context(), blobtest.Bytes(raw), d)
			plain := len(form) == 0
			if err != nil || table != plain || d.Tar != (plain || form[0] != "--no-tar") || (d.ZFile == nil) != (compression == "none") {
				t.Errorf("%v: chunk table %t, %+v, %v", args, table, d, err)
			}
			if plain && len(doc.Annotations) != 5 { // blob and table
				t.Errorf("%v: annotations %v", args, doc.Annotations)
			}
			ok(t, "check", to)
		}
	}
}

// TestMergeSize: the size of what is merged is the first one from the top.
func TestMergeSize(t *testing.T) {
	dir := t.TempDir()
	// The vectors have one layer that leaves its size to others.
	ok(t, "layer", "commit", "-o", dir+"/zero", vectors+"writable/stock-vsize0.data", vectors+"writable/stock-vsize0.index")
	ok(t, "layer", "merge", "-o", dir+"/merged", vectors+"edge/odd-vsize.raw.lsmt", dir+"/zero")
	checkLayer(t, 1049088, nil, dir+"/merged")
	r := reprise(t, "layer", "merge", "-o", dir+"/none", dir+"/zero", dir+"/zero")
	if r.code != exitFailed || !strings.Contains(r.err, "virtual size") {
		t.Errorf("%+v", r)
	}
}

// TestLayerRefused: what makes no sense is an error, and makes no file.
func TestLayerRefused(t *testing.T) {
	dir := t.TempDir()
	data, index, to := vectors+"edge/empty.data", vectors+"edge/empty.index", dir+"/out"
	for _, c := range []struct {
		want string
		code int
		args []string
	}{
		{"needs the data file and the index file", exitUsage, []string{"create", to}},
		{"neither append nor sparse", exitUsage, []string{"create", "--layer", "qcow2", to, dir + "/i"}},
		{"no size", exitUsage, []string{"create", "--vsize", "many", to, dir + "/i"}},
		{"needs a virtual size", exitFailed, []string{"create", "--layer", "sparse", "--vsize", "0", to, dir + "/i"}},
		{"malformed UUID", exitFailed, []string{"create", "--uuid", "x", to, dir + "/i"}},
		{"needs the file of a layer", exitUsage, []string{"commit", "-o", to}},
		{"there are more arguments", exitUsage, []string{"commit", "-o", to, data, index, index}},
		{`"gzip" is neither lz4 nor zstd, nor none`, exitUsage, []string{"commit", "-o", to, "--compression", "gzip", data, index}},
		{"block size 3000", exitUsage, []string{"commit", "-o", to, "--block-size", "3000", data, index}},
		{"needs its index file", exitFailed, []string{"commit", "-o", to, data}},
		{"needs an image", exitUsage, []string{"merge", "-o", to}},
		{"no such file", exitFailed, []string{"seal", dir + "/none", dir + "/i"}},
	} {
		r := reprise(t, append([]string{"layer"}, c.args...)...)
		if r.code != c.code || !strings.Contains(r.err, c.want) {
			t.Errorf("%v: %+v, want %q and exit code %d", c.args, r, c.want, c.code)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Fatalf("%v: left %v", c.args, left)
		}
	}
}

// TestLayerInUse: a layer that is written to is not committed.
func TestLayerInUse(t *testing.T) {
	dir := t.TempDir()
	files := lsmt.UpperFiles{Data: dir + "/data", Index: dir + "/index"}
	ok(t, "layer", "create", files.Data, files.Index)
	u, err := lsmt.OpenUpper(t.Context(), files, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"commit", "-o", dir + "/out"}, {"seal"}, {"grow", "--vsize", "100GiB"}} {
		r := reprise(t, append(append([]string{"layer"}, args...), files.Data, files.Index)...)
		if r.code != exitFailed || !strings.Contains(r.err, "in use") {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	ok(t, "layer", "commit", "-o", dir+"/out", files.Data, files.Index)
}

// TestOverlaybdLinks runs the program itself by the names of overlaybd's tools, as
// image builders do: a layer is made, sealed, and committed.
func TestOverlaybdLinks(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		link := filepath.Join(dir, name)
		if err := os.Symlink(self, link); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
		cmd := exec.Command(link, args...)
		cmd.Env = append(os.Environ(), runAsMain+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
	}
	data, index := dir+"/writable_data", dir+"/writable_index"
	run("overlaybd-create", data, index, "1", "-s", "-u", vectorUUID+"07")
	writes := map[int64][]byte{8192: noise(4096)}
	writeLayer(t, lsmt.UpperFiles{Data: data, Index: index}, writes)
	run("overlaybd-commit", data, index, dir+"/early", "-z", "-t", "-f")
	run("overlaybd-commit", "--seal", data, index)
	run("overlaybd-commit", "--commit_sealed", data, dir+"/overlaybd.commit", "-z", "-t")
	checkLayer(t, 1<<30, writes, dir+"/overlaybd.commit")
	if !bytes.Equal(readFile(t, dir+"/early"), readFile(t, dir+"/overlaybd.commit")) {
		t.Error("the sealed layer commits to another blob than the writable one")
	}
	if got := describe(t, readFile(t, dir+"/early")).Layer.Identity().Parent; got != vectorUUID+"07" {
		t.Errorf("parent is %s", got)
	}
}

// TestOverlaybdCreateEqualsUpstream makes the vectors of overlaybd-create, whose
// UUID alone is random.
func TestOverlaybdCreateEqualsUpstream(t *testing.T) {
	sparse := t.TempDir()
	unpackSparse(t, sparse)
	for name, args := range map[string][]string{
		"stock":        {"1"},
		"stock-sparse": {"-s", "1"},
		"stock-vsize0": {"-u", vectorUUID + "80", "0"},
	} {
		dir := t.TempDir()
		data, index := dir+"/data", dir+"/index"
		flags, gib := args[:len(args)-1], args[len(args)-1]
		if r := tool(t, "overlaybd-create", append(flags[:len(flags):len(flags)], data, index, gib)...); r.code != exitOK || r.err != "" {
			t.Fatalf("%s: %+v", name, r)
		}
		for file, want := range map[string]string{data: vectors + "writable/" + name + ".data", index: vectors + "writable/" + name + ".index"} {
			if name == "stock-sparse" && file == data {
				want = sparse + "/stock-sparse.data"
			}
			compareBut(t, file, want, 56, 56+36)
		}
	}
	for _, c := range [][]string{{"--mkfs", "a", "b", "1"}, {"a", "b", "-1"}, {"a", "b", "many"}, {"a", "b"}} {
		if r := tool(t, "overlaybd-create", c...); r.code != exitUsage {
			t.Errorf("%v: %+v", c, r)
		}
	}
}

// compareBut compares the start of two files, and their lengths, but for some bytes.
func compareBut(t *testing.T, got, want string, from, to int) {
	t.Helper()
	read := func(name string) ([]byte, int64) {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, min(8192, st.Size()))
		if _, err := f.ReadAt(p, 0); len(p) > 0 && err != nil {
			t.Fatal(err)
		}
		if len(p) >= to {
			clear(p[from:to])
		}
		return p, st.Size()
	}
	a, n := read(got)
	b, m := read(want)
	if n != m || !bytes.Equal(a, b) {
		t.Errorf("%s of %d bytes is not as upstream's %s of %d", got, n, want, m)
	}
}
