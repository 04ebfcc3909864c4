package zfile_test

import (
	"io"
	"runtime"
	"testing"

	"github.com/reprise-containers/reprise/backstore/zfile"
)

// zeroReader reads zeros without end.
type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestMemory: an open file of 300 MB, 75 thousand blocks, costs less than 256
// KiB, also after partial reads once the garbage is collected.
func TestMemory(t *testing.T) {
	var f file
	if _, err := zfile.Compress(&f, io.LimitReader(zeroReader{}, 75_000*4096), zfile.Options{}); err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		var m runtime.MemStats
		for range 3 { // pools are emptied by the second
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	readers := make([]*zfile.Reader, 20)
	for i := range readers {
		z, err := zfile.Open(t.Context(), memory(f.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := z.ReadAt(t.Context(), make([]byte, 100), 5000); err != nil {
			t.Fatal(err)
		}
		readers[i] = z
	}
	each := (heap() - before) / uint64(len(readers))
	t.Logf("%d bytes each", each)
	if each > 256<<10 {
		t.Errorf("%d bytes each", each)
	}
	runtime.KeepAlive(readers)
}
