package blob_test

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := blobtest.NewFaulty(blobtest.Bytes(make([]byte, 100)), blobtest.Fault{Delay: time.Second})
		type seen struct {
			n    int
			took time.Duration
			err  error
			p    blob.Priority
		}
		var got []seen
		b := blob.Observe(f, blob.ObserverFunc(func(n int, took time.Duration, err error, p blob.Priority) {
			got = append(got, seen{n, took, err, p})
		}))
		b.ReadAt(t.Context(), make([]byte, 40), 0)
		b.ReadAt(background(t), make([]byte, 40), 80)
		want := []seen{{40, time.Second, nil, blob.Demand}, {20, time.Second, io.EOF, blob.Background}}
		if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
			t.Errorf("observed %+v, want %+v", got, want)
		}
	})
}

func BenchmarkObserve(b *testing.B) {
	o := blob.Observe(blobtest.Bytes(make([]byte, 100)), blob.ObserverFunc(
		func(int, time.Duration, error, blob.Priority) {}))
	p := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		o.ReadAt(b.Context(), p, 0)
	}
}
