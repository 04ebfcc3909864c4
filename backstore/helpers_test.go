package backstore_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
)

const vectors = "testdata/vectors"

// golden returns the folder of vectors that are not ours to distribute, and
// skips the test where it is absent.
func golden(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join("..", "..", "shared", "golden", name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no golden data: %v", err)
	}
	return path
}

// memory is a blob in memory that is all present.
type memory []byte

func (m memory) Size() int64               { return int64(len(m)) }
func (m memory) Present(off, n int64) bool { return true }
func (m memory) String() string            { return "memory" }
func (m memory) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}

func readFile(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readGzip(t testing.TB, path ...string) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(readFile(t, path...)))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readJSON(t testing.TB, v any, path ...string) {
	t.Helper()
	if err := json.Unmarshal(readFile(t, path...), v); err != nil {
		t.Fatal(err)
	}
}

// readAll reads r whole, in pieces of 1 MiB.
func readAll(t testing.TB, r blob.ReaderAt) []byte {
	t.Helper()
	b := make([]byte, r.Size())
	for off := 0; off < len(b); off += 1 << 20 {
		piece := b[off:min(off+1<<20, len(b))]
		if n, err := r.ReadAt(t.Context(), piece, int64(off)); n != len(piece) {
			t.Fatalf("reading %d bytes at %d: %d, %v", len(piece), off, n, err)
		}
	}
	return b
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// device is what the reference reader reports about the bytes of a device.
type device struct {
	Size     int64  `json:"size"`
	SHA256   string `json:"sha256"`
	Nonzero  int    `json:"nonzero_4k"`
	NZSHA256 string `json:"nz_sha256"`
}

// checkDevice compares all of r with what the reference reader saw. Of devices
// of more than 1 GiB it reads only where they hold data, and the zeros around.
func checkDevice(t *testing.T, r blob.ReaderAt, want device) {
	t.Helper()
	if r.Size() != want.Size {
		t.Fatalf("size is %d, want %d", r.Size(), want.Size)
	}
	large := want.Size > 1<<30
	all, nz, nonzero := sha256.New(), sha256.New(), 0
	buf, zero := make([]byte, 1<<20), make([]byte, 4096)
	for off := int64(0); off < r.Size(); off += int64(len(buf)) {
		if large {
			start, _, err := r.(lsmt.Sparse).NextData(off)
			if err != nil {
				break
			}
			off = start - start%int64(len(buf))
		}
		p := buf[:min(int64(len(buf)), r.Size()-off)]
		if n, err := r.ReadAt(t.Context(), p, off); n != len(p) {
			t.Fatalf("reading %d bytes at %d: %d, %v", len(p), off, n, err)
		}
		all.Write(p)
		for at := 0; at < len(p); at += 4096 {
			block := p[at:min(at+4096, len(p))]
			if bytes.Equal(block, zero[:len(block)]) {
				continue
			}
			nonzero++
			nz.Write(binary.LittleEndian.AppendUint64(nil, uint64(off)+uint64(at)))
			nz.Write(block)
		}
	}
	if got := hex.EncodeToString(all.Sum(nil)); !large && want.SHA256 != "" && got != want.SHA256 {
		t.Errorf("sha256 is %s, want %s", got, want.SHA256)
	}
	if got := hex.EncodeToString(nz.Sum(nil)); want.NZSHA256 != "" && got != want.NZSHA256 {
		t.Errorf("nz_sha256 is %s of %d blocks, want %s of %d", got, nonzero, want.NZSHA256, want.Nonzero)
	}
}
