package tracelayer_test

import (
	"testing"

	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/tracelayer"
)

// TestRelease: who goes on to read a layer holds no records of what has ended.
func TestRelease(t *testing.T) {
	r := tracelayer.NewRecorder(0)
	layer := r.Layer(0, blobtest.Bytes(make([]byte, 4096)))
	read := func(off int64) {
		t.Helper()
		if _, err := layer.ReadAt(t.Context(), make([]byte, 512), off); err != nil {
			t.Fatal(err)
		}
	}
	read(0)
	read(512)
	trace := r.Stop()
	r.Release()
	read(1024)
	if again := r.Stop(); len(trace) != 2 || len(again) != 0 || r.Stats().Records != 2 {
		t.Errorf("%v, then %v, %+v", trace, again, r.Stats())
	}
}
