package tracelayer_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/tracelayer"
)

// identified is a recorded layer as a blob, for the suite.
type identified struct {
	blob.ReaderAt
	desc ocispec.Descriptor
}

func (i identified) Descriptor() ocispec.Descriptor { return i.desc }

func TestRecorderSuite(t *testing.T) {
	blobtest.Run(t, func(_ *testing.T, data []byte) blob.Blob {
		b := blobtest.Bytes(data)
		return identified{tracelayer.NewRecorder(0).Layer(0, b), b.Descriptor()}
	})
}

func TestRecorder(t *testing.T) {
	r := tracelayer.NewRecorder(0)
	faulty := blobtest.NewFaulty(blobtest.Bytes(make([]byte, 10_000)), blobtest.Fault{First: 3, Count: 1, Truncate: 10, Fail: true})
	bottom, top := r.Layer(0, faulty), r.Layer(1, blobtest.Bytes(make([]byte, 5000)))
	read := func(b blob.ReaderAt, off int64, n int) {
		_, _ = b.ReadAt(t.Context(), make([]byte, n), off)
	}
	read(bottom, 0, 4096)
	read(top, 512, 512)
	read(bottom, 0, 4096)    // again: only the reader of the other layer moved on
	read(bottom, 100, 50)    // fails
	read(top, 4000, 1000)    // up to the end
	read(top, 4000, 1001)    // reaches past it: not all of it
	read(top, 100, 0)        // nothing
	read(top, -1, 1)         // impossible
	read(bottom, 4096, 4096) // after another
	read(bottom, 0, 4096)    // not the last one any more
	want := tracelayer.Trace{
		{Op: 'R', Layer: 0, Off: 0, Count: 4096},
		{Op: 'R', Layer: 1, Off: 512, Count: 512},
		{Op: 'R', Layer: 1, Off: 4000, Count: 1000},
		{Op: 'R', Layer: 0, Off: 4096, Count: 4096},
		{Op: 'R', Layer: 0, Off: 0, Count: 4096},
	}
	if s := r.Stats(); s != (tracelayer.RecorderStats{Records: 5}) {
		t.Errorf("stats %+v", s)
	}
	if got := r.Stop(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	read(top, 0, 1)
	if got := r.Stop(); !slices.Equal(got, want) || r.Stats().Records != 5 {
		t.Errorf("after the end %v", got)
	}
}

// TestRecorderOrder has a read that began first end last.
func TestRecorderOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tracelayer.NewRecorder(0)
		data := blobtest.Bytes(make([]byte, 100))
		slow := r.Layer(0, blobtest.NewFaulty(data, blobtest.Fault{Delay: time.Second}))
		fast := r.Layer(1, data)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = slow.ReadAt(t.Context(), make([]byte, 1), 0) })
		synctest.Wait()
		if _, err := fast.ReadAt(t.Context(), make([]byte, 1), 0); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if got := r.Stop(); len(got) != 2 || got[0].Layer != 1 || got[1].Layer != 0 {
			t.Errorf("%v", got)
		}
	})
}

func TestRecorderLimit(t *testing.T) {
	for _, limit := range []int{1, 4095, 4096, 4097, 10_000} {
		r := tracelayer.NewRecorder(limit)
		b := r.Layer(3, blobtest.Bytes(make([]byte, 1<<20)))
		const reads = 12_000
		for i := range int64(reads) {
			if _, err := b.ReadAt(t.Context(), make([]byte, 1), i); err != nil {
				t.Fatal(err)
			}
		}
		if s := r.Stats(); s != (tracelayer.RecorderStats{Records: limit, Dropped: reads - limit}) {
			t.Errorf("limit %d: %+v", limit, s)
		}
		got := r.Stop()
		if len(got) != limit {
			t.Fatalf("limit %d: %d records", limit, len(got))
		}
		for i, rec := range got {
			if rec != (tracelayer.Record{Op: tracelayer.Read, Layer: 3, Off: int64(i), Count: 1}) {
				t.Fatalf("limit %d: record %d is %+v", limit, i, rec)
			}
		}
	}
}

// able is a blob with every optional ability.
type able struct {
	blob.Blob
	discarded int64
	rejected  string
}

func (a *able) Present(off, n int64) bool { return off+n <= 50 }
func (a *able) Discard(_, n int64)        { a.discarded += n }
func (a *able) Reject(origin string)      { a.rejected = origin }

func TestRecorderKeepsAbilities(t *testing.T) {
	plain := blobtest.Bytes(make([]byte, 100))
	a := &able{Blob: plain}
	r := tracelayer.NewRecorder(0)
	b := r.Layer(0, a)
	blob.Discard(b, 10, 20)
	blob.Reject(b, "http://a")
	if a.discarded != 20 || a.rejected != "http://a" || !blob.Present(b, 0, 50) || blob.Present(b, 0, 51) {
		t.Errorf("not handed down: %+v", a)
	}
	if blob.Present(r.Layer(0, plain), 0, 1) {
		t.Error("a blob that holds nothing says present")
	}
	if got, want := blob.Name(b), blob.Name(plain); got != want {
		t.Errorf("name %s, want %s", got, want)
	}
}

// TestRecorderRace has readers and those who ask and stop at the same time; the
// race detector looks on.
func TestRecorderRace(t *testing.T) {
	r := tracelayer.NewRecorder(5000)
	data := blobtest.Bytes(make([]byte, 1<<20))
	var wg sync.WaitGroup
	for i := range 4 {
		b := r.Layer(i, data)
		for range 2 {
			wg.Go(func() {
				for off := range int64(2000) {
					_, _ = b.ReadAt(t.Context(), make([]byte, 1), off)
				}
			})
		}
	}
	wg.Go(func() {
		for r.Stats().Records < 2000 {
			time.Sleep(time.Microsecond)
		}
		stopped := r.Stop()
		if again := r.Stop(); !slices.Equal(stopped, again) {
			t.Errorf("%d records, then %d", len(stopped), len(again))
		}
	})
	wg.Wait()
	if s := r.Stats(); len(r.Stop()) != s.Records || s.Records > 5000 {
		t.Errorf("%+v for %d records", s, len(r.Stop()))
	}
}

// BenchmarkRecorder reads 4 KiB from memory, the cheapest read there is, bare
// and recorded, and reports the ratio. A read through ZFile costs some hundred
// times as much as this one.
func BenchmarkRecorder(b *testing.B) {
	data := blobtest.Bytes(make([]byte, 64<<20))
	// What a block of 64 KiB costs to read is nearer to what a layer costs.
	for _, size := range []int{4 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			p := make([]byte, size)
			loop := func(r blob.ReaderAt) time.Duration {
				start := time.Now()
				for i := range b.N {
					_, _ = r.ReadAt(b.Context(), p, int64(i)*4096%(60<<20))
				}
				return time.Since(start)
			}
			bare := loop(data)
			recorded := loop(tracelayer.NewRecorder(b.N).Layer(0, data))
			b.ReportMetric(float64(recorded)/float64(bare), "ratio")
			b.ReportMetric(float64(recorded-bare)/float64(b.N), "ns/record")
		})
	}
}
