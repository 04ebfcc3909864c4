package zfile_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/reprise-containers/reprise/backstore/zfile"
)

// FuzzOpen opens any bytes as a ZFile and reads what opens, whole and from odd
// offsets: an error is fine, anything else is not.
func FuzzOpen(f *testing.F) {
	for _, pattern := range []string{"small-chain3/L2.*.zfile"} {
		paths, err := filepath.Glob("../testdata/vectors/" + pattern)
		if err != nil || len(paths) == 0 {
			f.Fatal("no vectors ", pattern, err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
			b = bytes.Clone(b)
			// The same without digests, so that mutations get past them.
			b[32] &^= 1 << 4
			b[len(b)-512+32] &^= 1 << 4
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		z, err := zfile.Open(t.Context(), memory(b))
		if err != nil {
			return
		}
		end := int64(zfile.HeaderSize)
		for i := range z.Blocks() {
			start, n := z.BlockExtent(i)
			if start < end || n < 1 || start+n > int64(len(b)) {
				t.Fatalf("block %d at %d+%d of %d bytes", i, start, n, len(b))
			}
			end = start + n
		}
		p := make([]byte, 10000)
		for off := int64(0); off < min(z.Size(), 1<<20); off += 9001 {
			n, err := z.ReadAt(t.Context(), p, off)
			if want := min(int64(len(p)), z.Size()-off); err == nil && int64(n) != want || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && int64(n) != want {
				t.Fatalf("reading at %d of %d: %d, %v", off, z.Size(), n, err)
			}
		}
	})
}
