package tarblob_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/reprise-containers/reprise/backstore/tarblob"
)

// FuzzOpen looks for a payload in any bytes; one that is found lies in them.
func FuzzOpen(f *testing.F) {
	paths, err := filepath.Glob(vectors + "/*/*.tar")
	if err != nil || len(paths) == 0 {
		f.Fatal("no vectors", err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:min(len(b), 4096)], int64(len(b)))
	}
	f.Fuzz(func(t *testing.T, head []byte, size int64) {
		if size < int64(len(head)) {
			return
		}
		at, ok, err := tarblob.Locate(head[:min(len(head), tarblob.HeadSize)], size)
		if !ok || err != nil {
			return
		}
		if at.Offset != 512 && at.Offset != 1536 || at.Size < 0 || at.Size > size-at.Offset {
			t.Fatalf("payload %+v of %d bytes", at, size)
		}
	})
}
