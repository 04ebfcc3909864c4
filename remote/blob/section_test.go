package blob_test

import (
	"slices"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

// able is a blob that notes what it is asked to do.
type able struct {
	blob.Blob
	discarded [][2]int64
	rejected  []string
}

func (a *able) Present(off, n int64) bool { return off >= 100 && off+n <= 200 }
func (a *able) Discard(off, n int64)      { a.discarded = append(a.discarded, [2]int64{off, n}) }
func (a *able) Reject(origin string)      { a.rejected = append(a.rejected, origin) }

// sized gives a section the descriptor that the suite asks for.
type sized struct{ blob.ReaderAt }

func (s sized) Descriptor() ocispec.Descriptor { return ocispec.Descriptor{Size: s.Size()} }

func TestSectionSuite(t *testing.T) {
	blobtest.Run(t, func(t *testing.T, data []byte) blob.Blob {
		around := slices.Concat(make([]byte, 77), data, []byte("behind"))
		return sized{blob.Section(blobtest.Bytes(around), 77, int64(len(data)))}
	})
}

func TestSectionAbilities(t *testing.T) {
	a := &able{Blob: blobtest.Bytes(pattern(1000))}
	s := blob.Section(a, 90, 500)
	if blob.Present(s, 0, 10) || !blob.Present(s, 10, 100) {
		t.Error("presence is not that of the section")
	}
	blob.Discard(s, 5, 7)
	blob.Reject(s, "http://x")
	if !slices.Equal(a.discarded, [][2]int64{{95, 7}}) || !slices.Equal(a.rejected, []string{"http://x"}) {
		t.Errorf("discarded %v, rejected %q", a.discarded, a.rejected)
	}
	if blob.Name(s) != blob.Name(a) {
		t.Errorf("named %q", blob.Name(s))
	}
	plain := blob.Section(blobtest.Bytes(pattern(10)), 0, 10)
	blob.Discard(plain, 0, 1) // nobody there who could
	if blob.Present(plain, 0, 1) {
		t.Error("present by itself")
	}
}

func TestOrigins(t *testing.T) {
	type arrival struct {
		off int64
		n   int
	}
	var arrived []arrival
	ctx, o := blob.WithArrivals(t.Context(), func(off int64, n int) { arrived = append(arrived, arrival{off, n}) })
	if blob.OriginsOf(ctx) != o {
		t.Fatal("the context has others")
	}
	o.Served(100, 10, "a")
	o.Served(110, 10, "a")
	o.Served(120, 10, "b")
	o.Served(130, 0, "c")
	if got := o.Of(119, 2); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("served by %q", got)
	}
	if got := o.Of(130, 10); got != nil {
		t.Errorf("served by %q", got)
	}
	if !slices.Equal(arrived, []arrival{{100, 10}, {110, 10}, {120, 10}}) {
		t.Errorf("arrived %v", arrived)
	}
	if o.AnyFailed() {
		t.Error("failed")
	}
	o.Failed()
	if !o.AnyFailed() {
		t.Error("not failed")
	}
	none := blob.OriginsOf(t.Context())
	none.Served(1, 1, "x")
	none.Failed()
	if none.Of(0, 10) != nil || none.AnyFailed() {
		t.Error("nobody's origins keep something")
	}
}
