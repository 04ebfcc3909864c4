package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

// tool runs the program under the name of one of overlaybd's tools.
func tool(t *testing.T, name string, args ...string) result {
	t.Helper()
	var out, log bytes.Buffer
	app := called("/opt/overlaybd/bin/" + name)
	app.Writer, app.ErrWriter = &out, &log
	code := exitCode(app.Run(t.Context(), append([]string{name}, args...)), &log)
	return result{out.String(), log.String(), code}
}

const vectorUUID = "00000000-1111-4222-8333-0000000000"

// TestOverlaybdCommitEqualsUpstream runs the command lines that made the vectors
// and compares every byte, but for those that compressors are free in: then the
// stream inside, and what is around the blocks.
func TestOverlaybdCommitEqualsUpstream(t *testing.T) {
	for _, c := range []struct {
		want string
		args string // %: the vectors
	}{
		{"small-chain3/L0.raw.lsmt", "--uuid U20 %small-chain3/L0.data %small-chain3/L0.index"},
		{"small-chain3/L1.raw.lsmt", "--uuid U21 -p U20 %small-chain3/L1.data %small-chain3/L1.index"},
		{"small-chain3/L2.raw.lsmt", "-t --uuid U22 --parent-uuid U21 %small-chain3/L2.data %small-chain3/L2.index"},
		{"edge/empty.raw.lsmt", "%edge/empty.data %edge/empty.index"},
		{"edge/seg256.raw.lsmt", "%edge/seg256.data %edge/seg256.index"},
		{"edge/odd-vsize.raw.lsmt", "%edge/odd-vsize.data %edge/odd-vsize.index"},
		{"edge/trim-only.raw.lsmt", "%edge/trim-only.data %edge/trim-only.index"},
		{"writable/append.committed.lsmt", "--uuid U180 %writable/append.data %writable/append.index"},
		{"writable/append-gc.committed.lsmt", "%writable/append-gc.data %writable/append-gc.index"},
		{"small-chain3/L0.lz4-4k.zfile", "-z --algorithm lz4 --bs 4 --uuid U20 %small-chain3/L0.data %small-chain3/L0.index"},
		{"small-chain3/L0.lz4-64k.zfile", "-z --bs 64 --uuid U20 %small-chain3/L0.data %small-chain3/L0.index"},
		{"small-chain3/L0.zstd-4k.zfile", "-z --algorithm zstd --uuid U20 %small-chain3/L0.data %small-chain3/L0.index"},
		{"small-chain3/L0.zstd-64k.tar", "-zt --algorithm=zstd --bs=64 --uuid U20 %small-chain3/L0.data %small-chain3/L0.index --compress_threads 2"},
		{"small-chain3/L1.lz4-4k.tar", "-z -t -p U20 --uuid U21 %small-chain3/L1.data %small-chain3/L1.index"},
		{"edge/empty.lz4-4k.tar", "-z -t %edge/empty.data %edge/empty.index"},
		{"edge/seg256.lz4-4k.tar", "%edge/seg256.data %edge/seg256.index -t -z --verbose"},
		{"edge/sealed.committed.lz4-4k.tar", "--commit_sealed %edge/sealed.sealed.lsmt -z -t"},
	} {
		t.Run(c.want, func(t *testing.T) {
			to := filepath.Join(t.TempDir(), "committed")
			args := strings.Fields(c.args)
			for i, a := range args {
				a = strings.Replace(a, "%", vectors, 1)
				if n, ok := strings.CutPrefix(a, "U"); ok {
					a = vectorUUID[:36-len(n)] + n
				}
				args[i] = a
			}
			// The output is the last of the positional arguments, flags may follow.
			if r := tool(t, "overlaybd-commit", append(args, to, "-f")...); r.code != exitOK || r.err != "" {
				t.Fatalf("%+v", r)
			}
			compareLayers(t, to, vectors+c.want)
		})
	}
}

// compareLayers compares the files of two layers.
func compareLayers(t *testing.T, got, want string) {
	t.Helper()
	a, b := readFile(t, got), readFile(t, want)
	if bytes.Equal(a, b) {
		return
	}
	if strings.HasSuffix(want, ".lsmt") {
		t.Errorf("%d bytes differ from upstream's %d", len(a), len(b))
		return
	}
	d, e := describe(t, a), describe(t, b)
	if d.Tar != e.Tar || d.Payload.Offset != e.Payload.Offset || d.FinalHeader != e.FinalHeader {
		t.Errorf("wrapped as %+v, upstream's is %+v", d, e)
	}
	if x, y := d.ZFile, e.ZFile; x.Algorithm() != y.Algorithm() || x.BlockSize() != y.BlockSize() || x.Blocks() != y.Blocks() {
		t.Errorf("ZFile of %d blocks of %d with %v, upstream's has %d of %d with %v", x.Blocks(), x.BlockSize(), x.Algorithm(), y.Blocks(), y.BlockSize(), y.Algorithm())
	}
	if x, y := stream(t, a), stream(t, b); !bytes.Equal(x, y) {
		t.Errorf("stream of %d bytes differs from upstream's of %d", len(x), len(y))
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func describe(t *testing.T, b []byte) backstore.Description {
	t.Helper()
	d, err := backstore.Describe(t.Context(), blobtest.Bytes(b))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// stream returns what is in a layer's wrapping.
func stream(t *testing.T, b []byte) []byte {
	t.Helper()
	r, err := backstore.Stream(t.Context(), blobtest.Bytes(b))
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, r.Size())
	if err := blob.ReadFull(t.Context(), r, p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestOverlaybdCommitSparse commits a sparse layer, whose holes matter.
func TestOverlaybdCommitSparse(t *testing.T) {
	dir := t.TempDir()
	unpackSparse(t, dir)
	to := filepath.Join(dir, "out")
	r := tool(t, "overlaybd-commit", dir+"/sparse.data", vectors+"writable/sparse.index", to)
	if r.code != exitOK {
		t.Fatalf("%+v", r)
	}
	compareLayers(t, to, vectors+"writable/sparse.committed.lsmt")
	// Ours needs no index file for it.
	if r := reprise(t, "layer", "commit", "--no-tar", "--compression", "none", "-f", "-o", to, dir+"/sparse.data"); r.code != exitOK {
		t.Fatalf("%+v", r)
	}
	compareLayers(t, to, vectors+"writable/sparse.committed.lsmt")
}

func unpackSparse(t *testing.T, dir string) {
	t.Helper()
	archive, err := filepath.Abs(vectors + "writable/sparse.tar")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-C", dir, "-xSf", archive).CombinedOutput(); err != nil {
		t.Skipf("no GNU tar: %v: %s", err, out)
	}
}

// TestOverlaybdMerge merges what a config.v1.json names.
func TestOverlaybdMerge(t *testing.T) {
	dir := t.TempDir()
	root, err := filepath.Abs(vectors + "small-chain3")
	if err != nil {
		t.Fatal(err)
	}
	config := `{"repoBlobUrl":"","lowers":[{"file":"` + root + `/L0.lz4-4k.tar"},{"file":"` + root + `/L1.zstd-4k.zfile"},{"file":"` + root + `/L2.raw.lsmt"}]}`
	if err := os.WriteFile(dir+"/config.v1.json", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{}, {"-t"}, {"--compress=false"}} {
		to, disk := filepath.Join(dir, "merged"), filepath.Join(dir, "disk")
		if r := tool(t, "overlaybd-merge", append(args, dir+"/config.v1.json", to)...); r.code != exitOK || r.err != "" {
			t.Fatalf("%v: %+v", args, r)
		}
		if r := reprise(t, "dump", to, "-f", "-o", disk); r.code != exitOK || !bytes.Equal(readFile(t, disk), expected(t)) {
			t.Errorf("%v: the merged layer is another disk: %+v", args, r)
		}
		d := describe(t, readFile(t, to))
		if d.Tar != (len(args) > 0 && args[0] == "-t") || (d.ZFile == nil) != (len(args) > 0 && args[0] == "--compress=false") {
			t.Errorf("%v: wrapped as %+v", args, d)
		}
	}
}

// TestOverlaybdRefused: what is not supported is an error that says so, and makes
// no file.
func TestOverlaybdRefused(t *testing.T) {
	data, index := vectors+"edge/empty.data", vectors+"edge/empty.index"
	to := filepath.Join(t.TempDir(), "out")
	for _, c := range []struct {
		name, want string
		args       []string
		code       int
	}{
		{"overlaybd-commit", "TurboOCI", []string{"--turboOCI", data, index, to}, exitUsage},
		{"overlaybd-commit", "TurboOCI", []string{"--fastoci", data, index, to}, exitUsage},
		{"overlaybd-commit", "--upload: it writes to files only", []string{"--upload", "https://r.example.com", data, index, to}, exitUsage},
		{"overlaybd-commit", "--bs 5", []string{"-z", "--bs", "5", data, index, to}, exitUsage},
		{"overlaybd-commit", `"gzip" is neither`, []string{"-z", "--algorithm", "gzip", data, index, to}, exitUsage},
		{"overlaybd-commit", "takes 3 arguments, not 2", []string{data, index}, exitUsage},
		{"overlaybd-commit", "two things", []string{"--seal", "--commit_sealed", data, index}, exitUsage},
		{"overlaybd-commit", "no such file", []string{data + "x", index, to}, exitFailed},
		{"overlaybd-commit", "malformed UUID", []string{"--uuid", "1234", data, index, to}, exitFailed},
		{"overlaybd-commit", "not defined", []string{"--gc", data, index, to}, exitUsage},
		{"overlaybd-commit", "needs its index file", []string{"--commit_sealed", data, to}, exitFailed},
		{"overlaybd-merge", "service_config_path", []string{"--service_config_path", "/etc/overlaybd/overlaybd.json", "config", to}, exitUsage},
		{"overlaybd-merge", "takes 2 arguments", []string{"config"}, exitUsage},
	} {
		r := tool(t, c.name, c.args...)
		if r.code != c.code || !strings.Contains(r.err, c.want) {
			t.Errorf("%s %v: %+v, want %q and exit code %d", c.name, c.args, r, c.want, c.code)
		}
		if _, err := os.Lstat(to); err == nil {
			t.Errorf("%s %v: made a file", c.name, c.args)
		}
	}
	if err := os.WriteFile(to, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := tool(t, "overlaybd-commit", data, index, to); r.code != exitFailed || string(readFile(t, to)) != "mine" {
		t.Errorf("replaced a file without -f: %+v", r)
	}
}
