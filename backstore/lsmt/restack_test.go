package lsmt_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// TestSnapshot: a snapshot stays what it was; of a sparse layer, because writes
// wait.
func TestSnapshot(t *testing.T) {
	kinds(t, func(t *testing.T, sparse bool) {
		const size = 64 << 20
		u, _ := newUpper(t, sparse, size, nil)
		for s := int64(0); s < 40000; s += 1000 {
			write(t, u, sectors(1, 1000), s)
		}
		want := readAll(t, u)
		l, release, err := u.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if sparse {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			if _, err := u.WriteAt(ctx, sectors(2, 8), 0); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("write to a sparse layer under a snapshot: %v", err)
			}
		} else {
			for s := int64(0); s < 40000; s += 1000 {
				write(t, u, sectors(2, 1000), s)
			}
			for range 3 { // of which the first two have a chance to free
				if err := u.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if s := u.Stats(); s.Freed != 0 || s.Dead == 0 {
				t.Errorf("under a snapshot: %+v", s)
			}
		}
		image, err := lsmt.Stack([]*lsmt.Layer{l})
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := l.Commit(t.Context(), &b, lsmt.Identity{}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(readAll(t, image), want) {
			t.Error("snapshot has changed")
		}
		release()
		release()
		write(t, u, sectors(3, 8), 0)
		if err := u.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := u.Stats(); !sparse && s.Freed < 19<<20 {
			t.Errorf("after the release: %+v", s)
		}
	})
}

// TestRestack stacks layers live, of both kinds in turn, writes on, and opens
// the result as a stack.
func TestRestack(t *testing.T) {
	kinds(t, func(t *testing.T, sparse bool) {
		const size = 300 * lsmt.SectorSize
		below := sectors(7, 300)
		u, files := newUpper(t, sparse, size, memory(below))
		h := &history{rnd: rand.New(rand.NewPCG(1, 15)), model: bytes.Clone(below)}
		all := []lsmt.UpperFiles{files}
		for i := range 6 {
			for range 20 {
				h.step(t, u)
			}
			next := newFiles(t)
			opts := lsmt.UpperOptions{Sparse: sparse != (i%2 == 0)}
			if opts.Sparse {
				opts.VirtualSize = size
			}
			if err := lsmt.CreateUpper(next, opts); err != nil {
				t.Fatal(err)
			}
			l, err := u.Restack(t.Context(), next)
			if err != nil {
				t.Fatal(err)
			}
			comparePieces(t, h.rnd, u, h.model)
			if l.Len() == 0 {
				t.Error("sealed layer is empty")
			}
			all = append(all, next)
		}
		for range 20 {
			h.step(t, u)
		}
		if _, err := u.Restack(t.Context(), files); err == nil {
			t.Error("stacked a layer that is in use")
		}
		comparePieces(t, h.rnd, u, h.model)
		closed(t, u)
		layers := []*lsmt.Layer{diff(t, make([]byte, size), below)}
		for _, files := range all[:len(all)-1] {
			f, err := lsmt.OpenFile(files.Data)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			l, err := lsmt.Open(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			layers = append(layers, l)
		}
		image, err := lsmt.Stack(layers)
		if err != nil {
			t.Fatal(err)
		}
		u = reopen(t, all[len(all)-1], image)
		comparePieces(t, h.rnd, u, h.model)
	})
}

// TestGrow: a larger disk reads as zeros where it is new, and shows what is
// below where that is larger.
func TestGrow(t *testing.T) {
	kinds(t, func(t *testing.T, sparse bool) {
		below := sectors(7, 40)
		u, files := newUpper(t, sparse, 21*512, memory(below))
		want := append(bytes.Clone(below), make([]byte, 60*512)...)
		copy(want[20*512:], sectors(1, 1))
		write(t, u, sectors(1, 1), 20)
		if u.Grow(t.Context(), 20*512) == nil || u.Grow(t.Context(), 22*512+1) == nil {
			t.Error("made it smaller, or a part of a sector larger")
		}
		for _, size := range []int64{21, 22, 30, 100} {
			if err := u.Grow(t.Context(), size*512); err != nil {
				t.Fatal(err)
			}
			if got := readAll(t, u); !bytes.Equal(got, want[:size*512]) {
				t.Fatalf("%d sectors: sector %d differs", size, differs(got, want))
			}
		}
		write(t, u, sectors(2, 5), 95)
		copy(want[95*512:], sectors(2, 5))
		closed(t, u)
		if got := checkFiles(t, files, below, 100*512); !bytes.Equal(got, want) {
			t.Errorf("sector %d differs", differs(got, want))
		}
		u = reopen(t, files, memory(below))
		if got := readAll(t, u); !bytes.Equal(got, want) {
			t.Errorf("reopened: sector %d differs", differs(got, want))
		}
	})
}

// TestReclaim: a disk that is written over and over takes no more room than a
// few times its size, while it is open and after it was opened again; nor does
// its log.
func TestReclaim(t *testing.T) {
	const size = 4 << 20
	u, files := newUpper(t, false, size, nil)
	rnd := rand.New(rand.NewPCG(1, 16))
	model := make([]byte, size)
	for i := range 40_000 {
		s := rnd.Int64N(size/4096) * 8
		p := model[s*512:][:4096]
		copy(p, sectors(i%900, 1))
		write(t, u, p, s)
		if i%1000 == 999 {
			if err := u.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := u.Stats()
	if s.Data > 20<<20 || s.Live > size || s.Segments > size/4096 {
		t.Errorf("%+v", s)
	}
	for range 40_000 { // past the point where the log is written anew
		write(t, u, model[:512], 0)
	}
	if err := u.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s = u.Stats(); s.Records > 10_000 {
		t.Errorf("%+v", s)
	}
	if got := readAll(t, u); !bytes.Equal(got, model) {
		t.Errorf("sector %d differs", differs(got, model))
	}
	write(t, u, model[512:1024], 1)
	lsmt.Abandon(u)
	u = reopen(t, files, nil)
	if got := readAll(t, u); !bytes.Equal(got, model) {
		t.Errorf("reopened: sector %d differs", differs(got, model))
	}
	if s = u.Stats(); s.Data > 15<<20 {
		t.Errorf("reopened: %+v", s)
	}
	if _, err := os.Stat(files.Index + ".new"); err == nil {
		t.Error("a new index file was left")
	}
}

// TestLarge: a disk of many TiB.
func TestLarge(t *testing.T) {
	kinds(t, func(t *testing.T, sparse bool) {
		const size = 12 << 40
		u, files := newUpper(t, sparse, size, nil)
		for i, s := range []int64{0, 2<<40/512 - 4, 5 << 40 / 512, size/512 - 8} {
			write(t, u, sectors(i, 8), s)
		}
		discard(t, u, 5<<40/512, 4)
		closed(t, u)
		if err := lsmt.SealUpper(t.Context(), files, 0); err != nil {
			t.Fatal(err)
		}
		f, err := lsmt.OpenFile(files.Data)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		l, err := lsmt.Open(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		image, err := lsmt.Stack([]*lsmt.Layer{l})
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 4096)
		for i, s := range []int64{0, 2<<40/512 - 4, 5 << 40 / 512, size/512 - 8} {
			want := sectors(i, 8)
			if i == 2 {
				clear(want[:2048])
			}
			if _, err := image.ReadAt(t.Context(), p, s*512); err != nil || !bytes.Equal(p, want) {
				t.Errorf("sector %d: %v, or other bytes", s, err)
			}
		}
	})
}
