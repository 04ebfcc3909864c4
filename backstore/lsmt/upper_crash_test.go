package lsmt_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// crashed copies the files of a layer that is open, as they would be found
// after a crash, with the index and the data file cut at the given lengths.
// With hole, the data from there on has the length and not the contents.
func crashed(t *testing.T, files lsmt.UpperFiles, index, data, hole int) lsmt.UpperFiles {
	t.Helper()
	out := newFiles(t)
	for _, c := range []struct {
		from, to string
		n        int
	}{{files.Index, out.Index, index}, {files.Data, out.Data, data}} {
		b, err := os.ReadFile(c.from)
		if err != nil {
			t.Fatal(err)
		}
		b = b[:min(c.n, len(b))]
		if c.to == out.Data && hole < len(b) {
			clear(b[hole:])
		}
		if err := os.WriteFile(c.to, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func length(t *testing.T, path string) int {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return int(st.Size())
}

// otherBoot has the files look as if the host had gone down since.
func otherBoot(t *testing.T, files lsmt.UpperFiles) {
	t.Helper()
	f, err := os.OpenFile(files.Index, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 16), 3584+8); err != nil {
		t.Fatal(err)
	}
}

// TestCrash cuts the files of a layer anywhere behind what was flushed, as a
// host that goes down does. The layer must open, to one of the states since the
// last flush; with data that has a length but no contents, to that flush.
func TestCrash(t *testing.T) {
	for seed := range uint64(15) {
		rnd := rand.New(rand.NewPCG(seed, 11))
		const size = 300 * lsmt.SectorSize
		u, files := newUpper(t, false, size, nil)
		h := &history{rnd: rnd, model: make([]byte, size)}
		for range rnd.IntN(40) {
			h.step(t, u)
		}
		if err := u.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rnd.IntN(3) == 0 { // what a session before has left is kept, too
			closed(t, u)
			u = reopen(t, files, nil)
		}
		states := [][]byte{bytes.Clone(h.model)}
		s := u.Stats()
		indexLow, dataLow := 4096+int(s.Records)*16, length(t, files.Data)
		for range 1 + rnd.IntN(20) {
			h.step(t, u)
			states = append(states, bytes.Clone(h.model))
		}
		s = u.Stats()
		indexHigh, dataHigh := 4096+int(s.Records)*16, length(t, files.Data)
		for range 10 {
			index, data := indexLow+rnd.IntN(indexHigh-indexLow+20), dataLow+rnd.IntN(dataHigh-dataLow+1)
			boot := rnd.IntN(2) == 0
			hole := dataHigh
			if boot {
				hole = dataLow
			}
			after := crashed(t, files, index, data, hole)
			if boot {
				otherBoot(t, after)
			}
			again := reopen(t, after, nil)
			got := readAll(t, again)
			if boot && !bytes.Equal(got, states[0]) {
				t.Fatalf("seed %d: the state after a lost host is not that of the last flush, from sector %d on", seed, differs(got, states[0]))
			}
			if !slices.ContainsFunc(states, func(s []byte) bool { return bytes.Equal(s, got) }) {
				// A discard is several records only when it is larger than this disk.
				t.Fatalf("seed %d: the layer opened to no state there was", seed)
			}
			// It goes on from there.
			next := &history{rnd: rnd, model: got}
			for range 10 {
				next.step(t, again)
			}
			closed(t, again)
			if got := checkFiles(t, after, nil, size); !bytes.Equal(got, next.model) {
				t.Fatalf("seed %d: written after the crash, and lost", seed)
			}
		}
	}
}

// TestCrashedProcess: what was written and not flushed is there when only the
// process died, padding ahead in the log or not.
func TestCrashedProcess(t *testing.T) {
	kinds(t, func(t *testing.T, sparse bool) {
		const size = 300 * lsmt.SectorSize
		u, files := newUpper(t, sparse, size, nil)
		h := &history{rnd: rand.New(rand.NewPCG(1, 12)), model: make([]byte, size)}
		for range 100 {
			h.step(t, u)
		}
		lsmt.Abandon(u)
		u = reopen(t, files, nil)
		if got := readAll(t, u); !bytes.Equal(got, h.model) {
			t.Errorf("sector %d differs", differs(got, h.model))
		}
	})
}

// TestForeignLog: records that another implementation has appended count,
// whatever became of the host.
func TestForeignLog(t *testing.T) {
	u, files := newUpper(t, false, 1<<20, nil)
	write(t, u, sectors(1, 4), 10)
	if err := u.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(t, u, sectors(2, 4), 20)
	closed(t, u)
	data, _ := os.OpenFile(files.Data, os.O_APPEND|os.O_WRONLY, 0)
	index, _ := os.OpenFile(files.Index, os.O_APPEND|os.O_WRONLY, 0)
	mapped := uint64(length(t, files.Data) / 512)
	if _, err := data.Write(sectors(3, 2)); err != nil {
		t.Fatal(err)
	}
	raw := binary.LittleEndian.AppendUint64(nil, 30|2<<50)
	raw = binary.LittleEndian.AppendUint64(raw, mapped|3<<56) // with a tag
	if _, err := index.Write(append(raw, 1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	data.Close()
	index.Close()
	u = reopen(t, files, nil)
	want := make([]byte, 1<<20)
	copy(want[10*512:], sectors(1, 4))
	copy(want[20*512:], sectors(2, 4))
	copy(want[30*512:], sectors(3, 2))
	if got := readAll(t, u); !bytes.Equal(got, want) {
		t.Errorf("sector %d differs", differs(got, want))
	}
}

// TestInterruptedSeal: a layer with a part of an index or a trailer behind its
// data is a writable one still.
func TestInterruptedSeal(t *testing.T) {
	kinds(t, func(t *testing.T, sparse bool) {
		const size = 300 * lsmt.SectorSize
		u, files := newUpper(t, sparse, size, nil)
		h := &history{rnd: rand.New(rand.NewPCG(1, 13)), model: make([]byte, size)}
		for range 50 {
			h.step(t, u)
		}
		closed(t, u)
		end := length(t, files.Data)
		if err := lsmt.SealUpper(t.Context(), files, 0); err != nil {
			t.Fatal(err)
		}
		sealed, err := os.ReadFile(files.Data)
		if err != nil {
			t.Fatal(err)
		}
		if err := lsmt.SealUpper(t.Context(), files, 0); err != nil {
			t.Fatal("sealing again:", err)
		}
		if again, _ := os.ReadFile(files.Data); !bytes.Equal(again, sealed) {
			t.Error("sealing again changed the layer")
		}
		for n := end; n <= len(sealed); n += 171 {
			if err := os.Truncate(files.Data, int64(n)); err != nil {
				t.Fatal(err)
			}
			checkWritable(t, files, h.model)
			u := reopen(t, files, nil)
			if got := readAll(t, u); !bytes.Equal(got, h.model) {
				t.Fatalf("cut at %d of %d: sector %d differs", n, len(sealed), differs(got, h.model))
			}
			closed(t, u)
			if err := lsmt.SealUpper(t.Context(), files, 0); err != nil {
				t.Fatal(err)
			}
			if again, _ := os.ReadFile(files.Data); !bytes.Equal(again, sealed) {
				t.Fatal("sealed after an interruption, the layer is another")
			}
		}
		os.Remove(files.Index)
		if err := lsmt.SealUpper(t.Context(), files, 0); err != nil {
			t.Error("sealed layer without index file:", err)
		}
		if err := os.Truncate(files.Data, int64(end)); err != nil {
			t.Fatal(err)
		}
		if err := lsmt.SealUpper(t.Context(), files, 0); err == nil {
			t.Error("sealed a layer without an index")
		}
	})
}

// checkWritable opens a layer for reading only.
func checkWritable(t *testing.T, files lsmt.UpperFiles, model []byte) {
	t.Helper()
	data, err := lsmt.OpenFile(files.Data)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	index, err := lsmt.OpenFile(files.Index)
	if err != nil {
		t.Fatal(err)
	}
	defer index.Close()
	l, err := lsmt.OpenWritable(t.Context(), data, index)
	if err != nil {
		t.Fatal(err)
	}
	image, err := lsmt.Stack([]*lsmt.Layer{l})
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, image); !bytes.Equal(got, model) {
		t.Fatalf("opened for reading, sector %d differs", differs(got, model))
	}
}

// TestFailures has any operation on the files fail, by an error or after half
// of it, and checks that nothing is lost but what failed.
func TestFailures(t *testing.T) {
	kinds(t, func(t *testing.T, sparse bool) {
		for seed := range uint64(20) {
			rnd := rand.New(rand.NewPCG(seed, 14))
			const size = 300 * lsmt.SectorSize
			below := sectors(7, 300)
			u, files := newUpper(t, sparse, size, memory(below))
			h := &history{rnd: rnd, model: bytes.Clone(below)}
			left := rnd.IntN(40)
			lsmt.Fail(u, func(op string) error {
				if left--; op == "sync" || left > 0 || rnd.IntN(3) > 0 {
					return nil
				}
				return syscall.ENOSPC
			})
			unknown := make([]bool, 300) // sectors of which a write failed
			for range 60 {
				h.stepFailing(t, u, unknown)
			}
			lsmt.Fail(u, nil)
			known := func(r []byte) {
				for s, u := range unknown {
					if u {
						copy(r[s*512:(s+1)*512], h.model[s*512:])
					}
				}
			}
			got := readAll(t, u)
			open := bytes.Clone(got)
			if known(got); !bytes.Equal(got, h.model) {
				t.Fatalf("seed %d: sector %d differs", seed, differs(got, h.model))
			}
			closed(t, u)
			if got := checkFiles(t, files, below, size); !bytes.Equal(got, open) {
				t.Fatalf("seed %d: sector %d on the disk differs from what was read before", seed, differs(got, open))
			}
		}
	})
}

func (h *history) stepFailing(t *testing.T, u *lsmt.Upper, unknown []bool) {
	t.Helper()
	first := h.rnd.IntN(300)
	n := 1 + h.rnd.IntN(min(300-first, 40))
	part := h.model[first*512 : (first+n)*512]
	var err error
	h.n++
	next := sectors(h.n, n)
	if h.rnd.IntN(4) == 0 {
		clear(next)
		err = u.Discard(t.Context(), int64(first)*512, int64(n)*512)
	} else {
		_, err = u.WriteAt(t.Context(), next, int64(first)*512)
	}
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	for s := first; s < first+n; s++ {
		unknown[s] = err != nil
	}
	copy(part, next)
}

// TestFailedSync: an error of fdatasync stays until the layer is opened again.
func TestFailedSync(t *testing.T) {
	kinds(t, func(t *testing.T, sparse bool) {
		u, files := newUpper(t, sparse, 1<<20, nil)
		write(t, u, sectors(1, 8), 0)
		if err := u.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		write(t, u, sectors(2, 8), 8)
		lsmt.Fail(u, func(op string) error {
			if op == "sync" {
				return syscall.EIO
			}
			return nil
		})
		if err := u.Flush(t.Context()); !errors.Is(err, syscall.EIO) {
			t.Errorf("flush: %v", err)
		}
		lsmt.Fail(u, nil)
		if err := u.Flush(t.Context()); !errors.Is(err, syscall.EIO) {
			t.Errorf("second flush: %v", err)
		}
		if err := u.Seal(t.Context()); !errors.Is(err, syscall.EIO) {
			t.Errorf("seal: %v", err)
		}
		if _, _, err := u.Snapshot(t.Context()); !errors.Is(err, syscall.EIO) {
			t.Errorf("snapshot: %v", err)
		}
		if err := u.Close(); !errors.Is(err, syscall.EIO) {
			t.Errorf("close: %v", err)
		}
		u = reopen(t, files, nil)
		if err := u.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestFull: more segments than the index takes is a full disk, not a broken one.
func TestFull(t *testing.T) {
	kinds(t, func(t *testing.T, sparse bool) {
		u, _ := newUpper(t, sparse, 1<<20, nil)
		lsmt.LimitSegments(u, 10)
		model := make([]byte, 1<<20)
		failed := 0
		for s := int64(0); s < 2000; s += 16 {
			p := sectors(1, 8)
			if _, err := u.WriteAt(t.Context(), p, s*512); err == nil {
				copy(model[s*512:], p)
			} else if failed++; !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
		}
		if failed == 0 || !bytes.Equal(readAll(t, u), model) {
			t.Errorf("%d writes failed, or something was lost", failed)
		}
		if err := u.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
