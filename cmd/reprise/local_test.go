package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// changing is what a report says of itself and of this implementation: how much
// was read for it, and the memory of an index.
var changing = regexp.MustCompile(`read [0-9.]+ .* for this report|[0-9.]+ [KM]?i?B of memory|"(bytes|requests|index_memory_bytes)": [0-9]+`)

func stable(s string) string { return changing.ReplaceAllString(s, "(varies)") }

func TestInspectText(t *testing.T) {
	for name, args := range map[string][]string{
		"inspect-lz4.txt":     chain3("lz4-4k.tar"),
		"inspect-trailer.txt": chain3("lz4-16k-trailer.tar"),
		"inspect-raw.txt":     chain3("raw.lsmt"),
		"inspect-nocrc.txt":   chain3("lz4-4k-nocrc.zfile"),
		"inspect-sealed.txt":  {vectors + "edge/sealed.sealed.lsmt"},
	} {
		r := reprise(t, append([]string{"inspect"}, args...)...)
		if r.code != exitOK || r.err != "" {
			t.Errorf("%s: %+v", name, r)
		}
		golden(t, name, stable(r.out))
	}
}

func TestInspectJSON(t *testing.T) {
	r := reprise(t, append([]string{"inspect", "--json"}, chain3("zstd-64k.tar")...)...)
	golden(t, "inspect.json", stable(r.out))
	if !json.Valid([]byte(r.out)) {
		t.Error("not JSON")
	}
}

func TestCheckText(t *testing.T) {
	r := reprise(t, append([]string{"check"}, chain3("lz4-4k.tar")...)...)
	if r.code != exitOK || r.err != "" {
		t.Errorf("%+v", r)
	}
	golden(t, "check.txt", r.out)
}

// damaged writes a copy of a vector with some bytes changed and returns its
// path, which is relative so that it can be part of a golden file.
func damaged(t *testing.T, name string, at ...int) string {
	t.Helper()
	b, err := os.ReadFile(vectors + name)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range at {
		b[i] ^= 1
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	return filepath.Base(name)
}

func TestCheckDamage(t *testing.T) {
	testdata, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	name := damaged(t, "small-chain3/L1.lz4-4k.tar", 2148, 20000)
	r := reprise(t, "check", name)
	if r.code != exitFailed || !strings.Contains(r.err, "problems") {
		t.Errorf("%+v", r)
	}
	j := reprise(t, "check", "--json", name)
	var doc struct {
		Errors int
		Layers []struct{ Problems []struct{ Kind string } }
	}
	if err := json.Unmarshal([]byte(j.out), &doc); err != nil || doc.Errors == 0 || len(doc.Layers[0].Problems) == 0 {
		t.Errorf("%+v, %v", j, err)
	}
	if j.code != exitFailed {
		t.Errorf("exit code %d with --json", j.code)
	}
	t.Chdir(filepath.Dir(testdata))
	golden(t, "check-damage.txt", r.out)
}

func expected(t *testing.T) []byte {
	t.Helper()
	f, err := os.Open(vectors + "small-chain3/expected.raw.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDump(t *testing.T) {
	want := expected(t)
	path := filepath.Join(t.TempDir(), "disk")
	args := append([]string{"dump"}, chain3("zstd-4k.zfile")...)
	if r := reprise(t, append(args, "-o", path)...); r.code != exitOK || !strings.Contains(r.out, "1.0 MiB") {
		t.Errorf("%+v", r)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("file differs, %v", err)
	}
	if r := reprise(t, append(args, "-o", path)...); r.code != exitFailed || !strings.Contains(r.err, "--force") {
		t.Errorf("%+v", r)
	}
	if r := reprise(t, append(args, "--force", "-o", path)...); r.code != exitOK {
		t.Errorf("%+v", r)
	}
	if r := reprise(t, append(args, "-o", "-")...); r.code != exitOK || r.out != string(want) {
		t.Errorf("standard output differs: exit code %d, %s", r.code, r.err)
	}
}

func TestProgressOnlyWhenAsked(t *testing.T) {
	args := append([]string{"check"}, chain3("lz4-4k.tar")...)
	if r := reprise(t, args...); r.err != "" {
		t.Errorf("wrote %q to what is not a terminal", r.err)
	}
	if r := reprise(t, append(args, "--progress")...); !strings.HasSuffix(r.err, "\r\x1b[K") {
		t.Errorf("wrote %q, want a line that was erased", r.err)
	}
}

func TestGoldenImages(t *testing.T) {
	dir := images(t)
	var want map[string]struct {
		NonZeroSHA256 string `json:"device_nz_sha256"`
		NonZero       int    `json:"device_nonzero_4k"`
		Segments      int    `json:"merged_segments"`
		Trace         string `json:"acceleration_layer"`
		Layers        []struct{ Digest string }
		PerLayer      []struct {
			Bytes    int64 `json:"lsmt_bytes"`
			Segments int
		} `json:"per_layer"`
	}
	b, err := os.ReadFile(dir + "/expected.json")
	if err == nil {
		err = json.Unmarshal(b, &want)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range want {
		t.Run(name, func(t *testing.T) {
			var got struct {
				Device struct {
					FileSystem string `json:"file_system"`
					Segments   int
				}
				Trace  *struct{ Digest string }
				Layers []struct {
					Digest string
					ZFile  struct {
						Uncompressed int64 `json:"uncompressed_bytes"`
					}
					LSMT struct{ Segments int }
				}
			}
			r := reprise(t, "inspect", "--json", filepath.Join(dir, name))
			if err := json.Unmarshal([]byte(r.out), &got); err != nil {
				t.Fatalf("%v: %+v", err, r)
			}
			if got.Device.FileSystem != "ext4" || got.Device.Segments != w.Segments || len(got.Layers) != len(w.PerLayer) {
				t.Errorf("%+v", got)
			}
			for i, l := range got.Layers {
				if l.Digest != w.Layers[i].Digest || l.LSMT.Segments != w.PerLayer[i].Segments || l.ZFile.Uncompressed != w.PerLayer[i].Bytes {
					t.Errorf("layer %d: %+v, want %+v", i, l, w.PerLayer[i])
				}
			}
			if (got.Trace == nil) != (w.Trace == "") || got.Trace != nil && got.Trace.Digest != w.Trace {
				t.Errorf("trace layer %+v, want %q", got.Trace, w.Trace)
			}
			path := filepath.Join(t.TempDir(), "disk")
			if r := reprise(t, "dump", filepath.Join(dir, name), "-o", path); r.code != exitOK {
				t.Fatalf("%+v", r)
			}
			if sum, n := nonZeroSum(t, path); sum != w.NonZeroSHA256 || n != w.NonZero {
				t.Errorf("%d blocks with sum %s, want %d with %s", n, sum, w.NonZero, w.NonZeroSHA256)
			}
			if r := reprise(t, "check", filepath.Join(dir, name)); r.code != exitOK {
				t.Errorf("%+v", r)
			}
		})
	}
}

// nonZeroSum returns the SHA-256 over offset and content of every block of
// 4 KiB that is not all zeros, and the number of these. It skips holes.
func nonZeroSum(t *testing.T, path string) (string, int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, blocks := sha256.New(), 0
	block, zeros := make([]byte, 4096), make([]byte, 4096)
	for off := int64(0); ; off += int64(len(block)) {
		if off, err = f.Seek(off, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
			return hex.EncodeToString(h.Sum(nil)), blocks
		}
		if _, err := f.ReadAt(block, off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(block, zeros) {
			h.Write(binary.LittleEndian.AppendUint64(nil, uint64(off)))
			h.Write(block)
			blocks++
		}
	}
}
