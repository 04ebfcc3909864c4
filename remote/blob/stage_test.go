package blob_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

func random(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(data)
	return data
}

// A stage is a blob whatever was put into it, wherever that lies.
func TestStageSuite(t *testing.T) {
	for name, prepare := range map[string]func(s *blob.Stage, data []byte){
		"Empty": func(*blob.Stage, []byte) {},
		"All":   func(s *blob.Stage, data []byte) { s.Put(0, data) },
		"Parts": func(s *blob.Stage, data []byte) {
			for off := 100; off+700 < len(data); off += 1000 {
				s.Put(int64(off), data[off:off+300])
				s.Put(int64(off+300), data[off+300:off+500])
				s.Put(int64(off+200), data[off+200:off+400]) // over both
			}
		},
		"Dropped": func(s *blob.Stage, data []byte) {
			for off := 0; off+10 < len(data); off += 10 {
				s.Put(int64(off), data[off:off+10])
				if off > 100 {
					s.Drop(int64(off), 10)
				}
			}
			s.Expect(5, 5, time.Hour)()
		},
	} {
		t.Run(name, func(t *testing.T) {
			blobtest.Run(t, func(_ *testing.T, data []byte) blob.Blob {
				s := blob.NewStage(blobtest.Bytes(data), "elsewhere")
				prepare(s, data)
				return s
			})
		})
	}
}

func readStage(t *testing.T, s *blob.Stage, off int64, n int) []byte {
	t.Helper()
	p := make([]byte, n)
	if got, err := s.ReadAt(t.Context(), p, off); got != n || err != nil {
		t.Errorf("reading %d bytes at %d: %d, %v", n, off, got, err)
	}
	return p
}

// What was put is no read of the blob below; of a read that it covers in part,
// only the rest is.
func TestStageReads(t *testing.T) {
	data := random(10_000)
	below := blobtest.NewFaulty(blobtest.Bytes(data))
	s := blob.NewStage(below, "elsewhere")
	s.Put(1000, data[1000:2000])
	s.Put(2000, data[2000:2500])
	s.Put(4000, data[4000:5000])
	for _, c := range []struct {
		off  int64
		n    int
		want []blobtest.Read
	}{
		{1000, 1500, nil},
		{1500, 800, nil},
		{500, 1000, []blobtest.Read{{Off: 500, Len: 500}}},
		{2400, 200, []blobtest.Read{{Off: 2500, Len: 100}}},
		{2400, 2000, []blobtest.Read{{Off: 2500, Len: 1500}}},
		{3500, 2000, []blobtest.Read{{Off: 3500, Len: 2000}}},
		{6000, 10, []blobtest.Read{{Off: 6000, Len: 10}}},
	} {
		before := len(below.Reads())
		if got := readStage(t, s, c.off, c.n); !bytes.Equal(got, data[c.off:c.off+int64(c.n)]) {
			t.Errorf("wrong bytes at %d", c.off)
		}
		reads := below.Reads()[before:]
		if len(reads) != len(c.want) || len(reads) == 1 && (reads[0].Off != c.want[0].Off || reads[0].Len != c.want[0].Len) {
			t.Errorf("reading %d at %d: reads below %v, want %v", c.n, c.off, reads, c.want)
		}
	}
	if blob.Present(s, 1000, 10) {
		t.Error("what is staged counts as present")
	}
	s.Drop(1000, 1000)
	before := len(below.Reads())
	readStage(t, s, 1000, 10)
	if len(below.Reads()) != before+1 {
		t.Error("what was dropped is still there")
	}
}

// Reads of what is expected wait for it, and only those.
func TestStageExpect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := random(10_000)
		below := blobtest.NewFaulty(blobtest.Bytes(data))
		s := blob.NewStage(below, "elsewhere")
		cancel := s.Expect(1000, 1000, time.Hour)
		s.Expect(2000, 100, time.Hour)
		var wg sync.WaitGroup
		for _, c := range []struct{ off, n int }{{1000, 1000}, {1500, 550}, {1900, 100}} {
			wg.Go(func() {
				if got := readStage(t, s, int64(c.off), c.n); !bytes.Equal(got, data[c.off:c.off+c.n]) {
					t.Errorf("wrong bytes at %d", c.off)
				}
			})
		}
		synctest.Wait()
		if s.Waiting() != 3 || len(below.Reads()) != 0 {
			t.Fatalf("%d reads wait, %d are below", s.Waiting(), len(below.Reads()))
		}
		readStage(t, s, 500, 1000) // what is not all expected does not wait
		if len(below.Reads()) != 1 {
			t.Errorf("reads below: %v", below.Reads())
		}
		s.Put(1000, data[1000:2000])
		synctest.Wait()
		if s.Waiting() != 1 {
			t.Errorf("%d reads wait after the first part came", s.Waiting())
		}
		// What was put is forgotten at once: it was copied before.
		s.Put(2000, data[2000:2100])
		s.Drop(1000, 1000)
		s.Drop(2000, 100)
		wg.Wait()
		if n := len(below.Reads()); n != 1 || s.Waiting() != 0 {
			t.Errorf("%d reads below, %d wait", n, s.Waiting())
		}
		cancel()
		cancel()
		readStage(t, s, 1000, 1000)
		if len(below.Reads()) != 2 {
			t.Error("a read waits for what is not expected any more")
		}
	})
}

// A read that waits goes on below when the expectation ends, and ends itself
// with its context.
func TestStageExpectNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := random(1000)
		s := blob.NewStage(blobtest.Bytes(data), "elsewhere")
		cancel := s.Expect(0, 500, time.Hour)
		ctx, stop := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := s.ReadAt(ctx, make([]byte, 10), 10)
			failed <- err
		}()
		var wg sync.WaitGroup
		wg.Go(func() {
			if !bytes.Equal(readStage(t, s, 100, 200), data[100:300]) {
				t.Error("wrong bytes")
			}
		})
		synctest.Wait()
		stop()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled read: %v", err)
		}
		if s.Waiting() != 1 {
			t.Errorf("%d reads wait", s.Waiting())
		}
		cancel()
		wg.Wait()
	})
}

// Who finds wrong bytes rejects their origin, and gets those of the blob below
// from then on.
func TestStageReject(t *testing.T) {
	data := random(1000)
	s := blob.NewStage(blobtest.Bytes(data), "elsewhere")
	s.Put(0, make([]byte, 500))
	ctx, origins := blob.WithOrigins(t.Context())
	p := make([]byte, 1000)
	if _, err := s.ReadAt(ctx, p, 0); err != nil {
		t.Fatal(err)
	}
	if from := origins.Of(0, 500); len(from) != 1 || from[0] != "elsewhere" {
		t.Errorf("bytes are of %v", from)
	}
	if from := origins.Of(500, 500); len(from) != 0 {
		t.Errorf("bytes of the blob below are of %v", from)
	}
	blob.Reject(s, "https://registry")
	if bytes.Equal(readStage(t, s, 0, 500), data[:500]) || s.Rejected() {
		t.Error("another origin was rejected, and the stage forgot")
	}
	blob.Reject(s, "elsewhere")
	if !bytes.Equal(readStage(t, s, 0, 500), data[:500]) || !s.Rejected() {
		t.Error("what was rejected is still served")
	}
	s.Put(0, make([]byte, 500))
	if !bytes.Equal(readStage(t, s, 0, 500), data[:500]) {
		t.Error("more is taken of who was rejected")
	}
	s.Drop(0, 500)
	s.Expect(0, 500, time.Hour)()
}

// Whatever is expected when what was put is found wrong keeps nobody waiting, nor
// does what is expected after that.
func TestStageRejectWhileExpected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := random(1000)
		s := blob.NewStage(blobtest.Bytes(data), "elsewhere")
		cancel := s.Expect(0, 500, time.Hour)
		var wg sync.WaitGroup
		read := func() {
			if !bytes.Equal(readStage(t, s, 100, 200), data[100:300]) {
				t.Error("wrong bytes")
			}
		}
		wg.Go(read)
		synctest.Wait()
		begin := time.Now()
		s.Reject("elsewhere")
		wg.Wait()
		s.Expect(0, 500, time.Hour)
		read()
		cancel()
		if n := time.Since(begin); n != 0 || s.Waiting() != 0 {
			t.Errorf("reads waited %v, %d wait", n, s.Waiting())
		}
	})
}

// A read waits for as long as the expectation says, and what it waited for in vain
// keeps nobody else waiting.
func TestStageExpectWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := random(10_000)
		below := blobtest.NewFaulty(blobtest.Bytes(data))
		s := blob.NewStage(below, "elsewhere")
		s.Expect(2000, 1000, time.Hour)
		s.Expect(1000, 500, time.Second)
		s.Expect(0, 1000, time.Minute)
		for _, c := range []struct {
			off  int64
			n    int
			took time.Duration
		}{{1000, 100, time.Second}, {1000, 500, 0}, {500, 100, time.Minute}, {0, 1000, 0}, {1400, 200, 0}} {
			begin := time.Now()
			if !bytes.Equal(readStage(t, s, c.off, c.n), data[c.off:c.off+int64(c.n)]) {
				t.Errorf("wrong bytes at %d", c.off)
			}
			if took := time.Since(begin); took != c.took { // of the bubble's clock
				t.Errorf("%d bytes at %d took %v, want %v", c.n, c.off, took, c.took)
			}
		}
		if n := len(below.Reads()); n != 5 {
			t.Errorf("%d reads below", n)
		}
	})
}

// A background read waits longer, until somebody waits for it.
func TestStageExpectBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := blob.NewStage(blobtest.Bytes(random(1000)), "elsewhere")
		read := func(ctx context.Context) time.Duration {
			s.Expect(0, 500, time.Second)
			begin := time.Now()
			if _, err := s.ReadAt(ctx, make([]byte, 100), 0); err != nil {
				t.Error(err)
			}
			return time.Since(begin)
		}
		if took := read(blob.WithPriority(t.Context(), blob.Background)); took != 10*time.Second {
			t.Errorf("it waited %v", took)
		}
		ctx, raisable := blob.WithRaisable(t.Context(), blob.Background)
		time.AfterFunc(5*time.Second, raisable.Raise)
		if took := read(ctx); took != 6*time.Second {
			t.Errorf("one raised after 5 s waited %v", took)
		}
	})
}

// What is put and expected in very many pieces is found in one pass.
func BenchmarkStageExpect(b *testing.B) {
	const pieces = 4096
	s := blob.NewStage(blobtest.Bytes(random(2*pieces)), "elsewhere")
	for off := int64(pieces); off > 0; off-- {
		defer s.Expect(off, 1, 0)()
	}
	p := make([]byte, pieces)
	for b.Loop() {
		if _, err := s.ReadAt(b.Context(), p, 2); err != nil {
			b.Fatal(err)
		}
	}
}
