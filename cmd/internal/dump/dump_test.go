package dump_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/cmd/internal/dump"
	"github.com/reprise-containers/reprise/remote/blob"
)

const vectors = "../../../backstore/testdata/vectors/"

// open opens layers of the test vectors, bottom first.
func open(t *testing.T, names ...string) *lsmt.Image {
	t.Helper()
	var layers []blob.ReaderAt
	for _, n := range names {
		f, err := blob.OpenFile(vectors + n)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		layers = append(layers, f)
	}
	img, err := backstore.Open(t.Context(), layers)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func chain3(t *testing.T) *lsmt.Image {
	return open(t, "small-chain3/L0.lz4-4k.tar", "small-chain3/L1.lz4-4k.tar", "small-chain3/L2.lz4-4k.tar")
}

// content reads the device with nothing of this package.
func content(t *testing.T, img *lsmt.Image) []byte {
	t.Helper()
	b := make([]byte, img.Size())
	if n, err := img.ReadAt(t.Context(), b, 0); n < len(b) {
		t.Fatal(err)
	}
	return b
}

func TestFileAndStream(t *testing.T) {
	for _, names := range [][]string{
		{"small-chain3/L0.lz4-4k.tar", "small-chain3/L1.lz4-4k.tar", "small-chain3/L2.lz4-4k.tar"},
		{"edge/odd-vsize.raw.lsmt"}, {"edge/seg256.lz4-4k.tar"}, {"edge/trim-only.raw.lsmt"}, {"edge/empty.raw.lsmt"},
		{"edge/sealed.sealed.lsmt"},
	} {
		t.Run(strings.Join(names, "+"), func(t *testing.T) {
			img := open(t, names...)
			want := content(t, img)
			path := filepath.Join(t.TempDir(), "disk")
			var done atomic.Int64
			cfg := dump.Config{Progress: func(n int64) { done.Add(n) }}
			if err := dump.File(t.Context(), img, path, cfg); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("file differs from the device, %v", err)
			}
			if done.Load() != dump.Mapped(img) {
				t.Errorf("progress of %d bytes, want %d", done.Load(), dump.Mapped(img))
			}
			var out bytes.Buffer
			if err := dump.Stream(t.Context(), img, &out, dump.Config{}); err != nil || !bytes.Equal(out.Bytes(), want) {
				t.Errorf("stream differs from the device, %v", err)
			}
		})
	}
}

// The device of the chain was computed without any reader.
func TestFileEqualsTheExpectedDevice(t *testing.T) {
	f, err := os.Open(vectors + "small-chain3/expected.raw.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	want, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := dump.File(t.Context(), chain3(t), path, dump.Config{}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("file differs, %v", err)
	}
}

func TestFileIsSparse(t *testing.T) {
	img := open(t, "edge/trim-only.raw.lsmt")
	path := filepath.Join(t.TempDir(), "disk")
	if err := dump.File(t.Context(), img, path, dump.Config{}); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if used := st.Sys().(*syscall.Stat_t).Blocks * 512; st.Size() != img.Size() || used > 4096 {
		t.Errorf("%d bytes take %d on disk", st.Size(), used)
	}
}

func TestFileNeverReplacesByAccident(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	if err := os.WriteFile(path, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	img := chain3(t)
	if err := dump.File(t.Context(), img, path, dump.Config{}); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("overwriting: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("the file was replaced")
	}
	if err := dump.File(t.Context(), img, path, dump.Config{Force: true}); err != nil {
		t.Error(err)
	}
	if err := dump.File(t.Context(), img, os.DevNull, dump.Config{Force: true}); err == nil {
		t.Error("replaced a device node")
	}
	checkAlone(t, dir, "disk")
}

// checkAlone fails the test if dir holds anything but names.
func checkAlone(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != len(names) {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

var errBroken = errors.New("broken on purpose")

func TestFileLeavesNothingAfterAnError(t *testing.T) {
	dir := t.TempDir()
	f, err := blob.OpenFile(vectors + "small-chain3/L0.raw.lsmt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := backstore.Open(t.Context(), []blob.ReaderAt{f})
	if err != nil {
		t.Fatal(err)
	}
	f.Close() // from here on, every read fails
	if err := dump.File(t.Context(), img, filepath.Join(dir, "disk"), dump.Config{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("error %v", err)
	}
	checkAlone(t, dir)
	if err := dump.Stream(t.Context(), img, io.Discard, dump.Config{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("error %v", err)
	}
}

func TestStreamStopsWithItsReader(t *testing.T) {
	r, w := io.Pipe()
	r.CloseWithError(errBroken)
	if err := dump.Stream(t.Context(), chain3(t), w, dump.Config{}); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
}
