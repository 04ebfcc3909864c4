package replay_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/tracelayer"
	"github.com/reprise-containers/reprise/tracelayer/replay"
)

// All of a plan is there after one request for the data and none for the layers;
// a second replay makes none at all.
func TestData(t *testing.T) {
	w := newWorld(t, 600, true, true)
	s := run(t, w.job(nil))
	if w.requests() != 0 || s.Streams != 1 || s.Ranges != 0 || s.Prefetched.Extents != int64(len(w.plan.Extents)) || s.Received != int64(len(w.data)) {
		t.Errorf("%d requests for %d extents: %+v, %v, %v", w.requests(), len(w.plan.Extents), s, w.layers[0].origin.Reads(), w.layers[1].origin.Reads())
	}
	w.check(t)
	if st := w.streams[0]; !st.closed || st.window < 64<<10 {
		t.Errorf("stream %+v", st)
	}
	s = run(t, w.job(nil))
	if w.requests() != 0 || s.Streams != 0 || s.Present.Extents != int64(len(w.plan.Extents)) || s.Prefetched.Extents != 0 {
		t.Errorf("when all is there: %+v", s)
	}
}

// Layers without a table are read by ranges, whatever data there are: neighbours
// together.
func TestRanges(t *testing.T) {
	for name, job := range map[string]func(w *world) replay.Job{
		"no table": func(w *world) replay.Job { return w.job(nil) },
		"no data": func(w *world) replay.Job {
			j := w.job(nil)
			j.Data = nil
			return j
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 600, name == "no data", false)
			s := run(t, job(w))
			if s.Streams != 0 || s.Prefetched.Extents != int64(len(w.plan.Extents)) || s.Ranges == 0 || s.Ranges > int64(len(w.plan.Extents)) {
				t.Errorf("%+v", s)
			}
			w.check(t)
		})
	}
}

// Neighbours are one request, also across a gap that costs less than that.
func TestMerge(t *testing.T) {
	w := newWorld(t, 300, false)
	w.plan.Extents = nil
	for _, k := range []int64{5, 3, 4, 100, 6, 101} {
		w.add(t, 0, k*leaf, leaf)
	}
	s := run(t, w.job(nil))
	if s.Ranges != 2 || w.requests() != 2 {
		t.Errorf("%d requests: %+v, %v", w.requests(), s, w.layers[0].origin.Reads())
	}
	w.check(t)
}

// A plan that does not fit its image is skipped where it does not.
func TestForeignPlan(t *testing.T) {
	w := newWorld(t, 300, true, false)
	good := len(w.plan.Extents)
	end := int64(len(w.layers[1].data))
	w.plan.Layers[1].Size += 1 << 20
	w.plan.Layers = append(w.plan.Layers, tracelayer.PlanLayer{Digest: digest.FromString("other"), Size: 1 << 30})
	w.plan.Extents = append(w.plan.Extents, []tracelayer.Extent{
		{Layer: 2, Off: 0, Size: 10},
		{Layer: 1, Off: end - 5, Size: 10},
		{Layer: 1, Off: end + 10, Size: 10},
	}...)
	if err := w.plan.Validate(); err != nil {
		t.Fatal(err)
	}
	j := w.job(nil)
	s := run(t, j)
	if s.Prefetched.Extents != int64(good) || s.Invalid.Extents != 3 {
		t.Errorf("of %d good extents: %+v", good, s)
	}
	// Nothing at all is known of the layers.
	j.Targets = []replay.Target{{}, {}}
	if s := run(t, j); s.Invalid.Extents != int64(len(w.plan.Extents)) {
		t.Errorf("%+v", s)
	}
	j.Targets = nil
	if s := run(t, j); s.Invalid.Extents != int64(len(w.plan.Extents)) {
		t.Errorf("%+v", s)
	}
}

func TestBudget(t *testing.T) {
	w := newWorld(t, 300, true)
	j := w.job(nil)
	j.Budget = w.plan.Extents[0].Size + 10*leaf
	s := run(t, j)
	if s.Prefetched.Extents != 11 || s.Budget.Extents != int64(len(w.plan.Extents)-11) || s.Received >= int64(len(w.data)) {
		t.Errorf("%+v", s)
	}
}

// A stream that breaks is resumed where it broke; if that leads nowhere, ranges
// do it.
func TestBrokenStream(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for name, c := range map[string]struct {
		fault  func(s *stream) replay.Stream
		ranges bool
	}{
		"pieces": {func(s *stream) replay.Stream {
			s.r = iotest.HalfReader(s.r)
			return s
		}, false},
		"breaks": {func(s *stream) replay.Stream {
			s.r = io.MultiReader(io.LimitReader(s.r, 50_000+rng.Int64N(50_000)), iotest.ErrReader(io.ErrUnexpectedEOF))
			return s
		}, false},
		"never": {func(*stream) replay.Stream { return nil }, true},
		"ends early": {func(s *stream) replay.Stream {
			s.r = io.LimitReader(s.r, 10_000)
			return s
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 300, true, true)
			s := run(t, w.job(c.fault))
			if s.Prefetched.Extents != int64(len(w.plan.Extents)) || (s.Ranges > 0) != c.ranges {
				t.Errorf("%+v", s)
			}
			w.check(t)
		})
	}
}

// Data that are not what the plan says, or are what it says but not what the
// layer has, do not get anywhere: the registry is asked.
func TestWrongData(t *testing.T) {
	for name, spoil := range map[string]func(w *world){
		"some": func(w *world) { w.data[len(w.data)/2] ^= 1 },
		"all": func(w *world) {
			for i := range w.data {
				w.data[i] ^= 0x55
			}
		},
		"the plan agrees": func(w *world) {
			w.plan.Extents, w.data = nil, nil
			for _, l := range w.layers {
				for i := range l.data {
					l.data[i] ^= 0x55
				}
			}
			w.record(t, 300)
			for _, l := range w.layers {
				for i := range l.data {
					l.data[i] ^= 0x55
				}
			}
		},
		"the plan agrees, table right": func(w *world) {
			k := len(w.layers) // of the metadata
			extents := w.plan.Extents
			w.plan.Extents, w.data = nil, nil
			for _, l := range w.layers {
				w.add(t, len(w.plan.Extents), l.table.Offset, l.table.Size)
			}
			for _, e := range extents[k:] {
				l := w.layers[e.Layer]
				l.data[e.Off] ^= 1
				w.add(t, e.Layer, e.Off, e.Size)
				l.data[e.Off] ^= 1
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 300, true, true)
			spoil(w)
			s := run(t, w.job(nil))
			if s.Corrupt.Extents == 0 || w.requests() == 0 {
				t.Errorf("%d requests, %+v", w.requests(), s)
			}
			for i, l := range w.layers {
				got := make([]byte, len(l.data))
				if n, err := l.target.Blob.ReadAt(t.Context(), got, 0); n != len(got) || !bytes.Equal(got, l.data) {
					t.Errorf("layer %d reads wrong: %v", i, err)
				}
			}
		})
	}
}

// What a registry serves in place of a layer without a table is not kept if the
// plan says that it was something else.
func TestWrongRange(t *testing.T) {
	w := newWorld(t, 300, false)
	e := w.plan.Extents[50]
	w.layers[0].origin.Script(blobtest.Fault{Off: e.Off, Len: e.Size, Corrupt: true})
	s := run(t, w.job(nil))
	if s.Corrupt.Extents == 0 || s.Prefetched.Extents+s.Corrupt.Extents != int64(len(w.plan.Extents)) {
		t.Errorf("%+v", s)
	}
	if blob.Present(w.layers[0].target.Blob, e.Off, e.Size) {
		t.Error("what is wrong was kept")
	}
}

func TestFailingRanges(t *testing.T) {
	w := newWorld(t, 300, false)
	w.layers[0].origin.Script(blobtest.Fault{Fail: true})
	if s := run(t, w.job(nil)); s.Failed.Extents != int64(len(w.plan.Extents)) {
		t.Errorf("%+v", s)
	}
}

// A replay ends with its context, wherever it is, and leaves nothing expected.
func TestCancel(t *testing.T) {
	for name, hang := range map[string]func(w *world) replay.Job{
		"stream": func(w *world) replay.Job {
			return w.job(func(s *stream) replay.Stream {
				s.r = io.MultiReader(io.LimitReader(s.r, 100_000), hanging{s.ctx})
				return s
			})
		},
		"ranges": func(w *world) replay.Job {
			w.layers[1].origin.Script(blobtest.Fault{First: 5, Hang: true})
			return w.job(nil)
		},
		"no stream": func(w *world) replay.Job {
			return w.job(func(*stream) replay.Stream { return nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 300, true, false)
			j := hang(w)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := replay.Run(ctx, j)
				done <- err
			}()
			for len(w.layers[1].origin.Reads()) == 0 { // it is under way
				_, _ = w.layers[0].target.Blob.ReadAt(t.Context(), make([]byte, 10), 4096)
			}
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			got := make([]byte, len(w.layers[0].data))
			if n, err := w.layers[0].target.Blob.ReadAt(t.Context(), got, 0); n != len(got) || !bytes.Equal(got, w.layers[0].data) {
				t.Errorf("reading afterwards: %d bytes, %v", n, err)
			}
		})
	}
}

// hanging is a stream that delivers nothing.
type hanging struct{ ctx context.Context }

func (h hanging) Read([]byte) (int, error) {
	<-h.ctx.Done()
	return 0, h.ctx.Err()
}
