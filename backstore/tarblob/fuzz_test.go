package tarblob_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/reprise-containers/reprise/backstore/tarblob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
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

// FuzzNextMember looks for a second member in any archive; one that is found
// without an error lies in it.
func FuzzNextMember(f *testing.F) {
	header, err := tarblob.MemberHeader("overlaybd.chunks", 700)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(header, make([]byte, 1024)...), int64(0))
	f.Add(append(make([]byte, 512), header...), int64(3))
	f.Fuzz(func(t *testing.T, data []byte, size int64) {
		if size < 0 || size > int64(len(data)) {
			return
		}
		m, ok, err := tarblob.NextMember(t.Context(), blobtest.Bytes(data), tarblob.Range{Size: size})
		if !ok || err != nil {
			return
		}
		if m.Offset < size+512 || m.Offset%512 != 0 || m.Size < 0 || m.Size > int64(len(data))-m.Offset {
			t.Fatalf("member %+v of %d bytes", m, len(data))
		}
	})
}
