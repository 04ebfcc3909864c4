package lsmt_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
)

// checkFiles reads the files of a writable layer that is closed as the format's
// description says, with none of the package's code, checks every rule on the
// way, and returns what a disk of size bytes over lower reads as.
func checkFiles(t *testing.T, files lsmt.UpperFiles, lower []byte, size int) []byte {
	t.Helper()
	data, err := os.ReadFile(files.Data)
	if err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(files.Index)
	if err != nil {
		t.Fatal(err)
	}
	disk := make([]byte, size)
	copy(disk, lower)
	le := binary.LittleEndian
	checkBlock := func(b []byte, flags uint32, offset uint64) {
		t.Helper()
		if len(b) < 4096 || string(b[:4]) != "LSMT" || le.Uint32(b[24:]) != 390 || le.Uint32(b[28:]) != flags || le.Uint64(b[32:]) != offset ||
			le.Uint64(b[40:]) != 0 || le.Uint64(b[48:]) != uint64(size) || b[92] != 0 || b[132] != 1 || b[133] != 1 || !bytes.Equal(b[390:4096], make([]byte, 4096-390)) {
			t.Fatalf("header breaks a rule: % x", b[:min(len(b), 400)])
		}
	}
	if len(index) == 0 {
		checkBlock(data, 0x13, 0)
		if len(data) != 4096+size {
			t.Fatalf("sparse data file of %d bytes for a disk of %d", len(data), size)
		}
		copyData(t, files.Data, disk)
		return disk
	}
	checkBlock(data, 0x03, 0)
	checkBlock(index, 0x01, 4096)
	if !bytes.Equal(data[56:130], index[56:130]) {
		t.Fatal("UUIDs of the files differ")
	}
	for raw := index[4096:]; len(raw) > 0; raw = raw[16:] {
		w0, w1 := le.Uint64(raw), le.Uint64(raw[8:])
		offset, length, mapped := int(w0&(1<<50-1)), int(w0>>50), int(w1&(1<<55-1))
		if w0&(1<<50-1) == 1<<50-1 {
			continue
		}
		zeroed := w1>>55&1 == 1
		if length == 0 || !zeroed && length > 8192 || (offset+length)*512 > size || mapped < 8 || w1>>56 != 0 {
			t.Fatalf("record breaks a rule: %d sectors at %d to %d", length, offset, mapped)
		}
		part := disk[offset*512 : (offset+length)*512]
		if zeroed {
			if mapped*512 > len(data) {
				t.Fatalf("zeroed record at %d points to sector %d behind the data", offset, mapped)
			}
			clear(part)
			continue
		}
		if (mapped+length)*512 > len(data) {
			t.Fatalf("record at %d points to sector %d behind the data", offset, mapped)
		}
		copy(part, data[mapped*512:])
	}
	return disk
}

// copyData copies what a sparse file has data for.
func copyData(t *testing.T, path string, disk []byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for off := int64(4096); ; {
		start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if err != nil {
			return
		}
		off, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(disk[start-4096:min(off-4096, int64(len(disk)))], start); err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
}

// belows are things for a writable layer to lie on.
var belows = map[string]func(t *testing.T, size int) (blob.ReaderAt, []byte){
	"nothing": func(*testing.T, int) (blob.ReaderAt, []byte) { return nil, nil },
	"memory": func(_ *testing.T, size int) (blob.ReaderAt, []byte) {
		b := sectors(7, size/lsmt.SectorSize)
		return memory(b), b
	},
	"smaller": func(_ *testing.T, size int) (blob.ReaderAt, []byte) {
		b := sectors(7, size/lsmt.SectorSize/3)
		return memory(b), b
	},
	// An image tells where it has data, and has little.
	"image": func(t *testing.T, size int) (blob.ReaderAt, []byte) {
		data := sectors(7, 60)
		var records []lsmt.Segment
		b := make([]byte, size)
		for at, mapped := int64(3), int64(8); mapped < 60; at, mapped = at+17+mapped%3*8, mapped+7 {
			records = append(records, lsmt.Segment{Offset: at, Length: 7, Mapped: mapped, Zeroed: mapped%2 == 0})
			if mapped%2 != 0 {
				copy(b[at*lsmt.SectorSize:], data[(mapped-8)*lsmt.SectorSize:][:7*lsmt.SectorSize])
			}
		}
		l, err := lsmt.Open(t.Context(), memory(lsmt.BuildLayer(lsmt.Identity{VirtualSize: int64(size)}, data, records)))
		if err != nil {
			t.Fatal(err)
		}
		image, err := lsmt.Stack([]*lsmt.Layer{l})
		if err != nil {
			t.Fatal(err)
		}
		return image, b
	},
}

// history changes a layer and a plain array in the same random way.
type history struct {
	rnd   *rand.Rand
	model []byte
	n     int
}

func (h *history) step(t *testing.T, u *lsmt.Upper) {
	t.Helper()
	disk := int64(len(h.model) / lsmt.SectorSize)
	first := h.rnd.Int64N(disk)
	n := 1 + h.rnd.Int64N(min(disk-first, 1+h.rnd.Int64N(64)))
	if h.rnd.IntN(3) == 0 { // as file systems do
		first -= first % 8
		n = min(n+7-(n+7)%8, disk-first)
	}
	part := h.model[first*lsmt.SectorSize : (first+n)*lsmt.SectorSize]
	h.n++
	if h.rnd.IntN(4) == 0 {
		discard(t, u, first, n)
		clear(part)
		return
	}
	copy(part, sectors(h.n%900, int(n)))
	write(t, u, part, first)
}

// TestUpperModel changes layers and a plain array in the same way, through
// flushes and reopenings, over all kinds of lower, and reads the closed files
// as another implementation would.
func TestUpperModel(t *testing.T) {
	kinds(t, func(t *testing.T, sparse bool) {
		for name, below := range belows {
			t.Run(name, func(t *testing.T) {
				for seed := range uint64(4) {
					testModel(t, sparse, seed, below)
				}
			})
		}
	})
}

func testModel(t *testing.T, sparse bool, seed uint64, below func(*testing.T, int) (blob.ReaderAt, []byte)) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 3))
	size := (300 + rnd.IntN(17)) * lsmt.SectorSize
	lower, bytesBelow := below(t, size)
	u, files := newUpper(t, sparse, int64(size), lower)
	h := &history{rnd: rnd, model: make([]byte, size)}
	copy(h.model, bytesBelow)
	for round := range 12 {
		for range rnd.IntN(30) {
			h.step(t, u)
			if rnd.IntN(5) == 0 {
				if err := u.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		comparePieces(t, rnd, u, h.model)
		closed(t, u)
		if got := checkFiles(t, files, bytesBelow, size); !bytes.Equal(got, h.model) {
			t.Fatalf("seed %d, round %d: another reader of the files sees something else in sector %d", seed, round, differs(got, h.model))
		}
		u = reopen(t, files, lower)
		comparePieces(t, rnd, u, h.model)
	}
	checkSealed(t, u, files, lower, h.model)
}

// differs returns the first sector that differs.
func differs(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i / lsmt.SectorSize
		}
	}
	return -1
}

// comparePieces reads at any offset and of any length.
func comparePieces(t *testing.T, rnd *rand.Rand, r blob.ReaderAt, model []byte) {
	t.Helper()
	if got := readAll(t, r); !bytes.Equal(got, model) {
		t.Fatalf("sector %d reads differently", differs(got, model))
	}
	for range 20 {
		off := rnd.IntN(len(model))
		p := bytes.Repeat([]byte{0xaa}, rnd.IntN(len(model)-off))
		if n, err := r.ReadAt(t.Context(), p, int64(off)); n != len(p) || !bytes.Equal(p, model[off:off+n]) {
			t.Fatalf("%d bytes at %d: %d, %v, or other bytes", len(p), off, n, err)
		}
	}
}

// checkSealed seals a layer, and opens and commits it as one that is sealed.
func checkSealed(t *testing.T, u *lsmt.Upper, files lsmt.UpperFiles, lower blob.ReaderAt, model []byte) {
	t.Helper()
	if err := u.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, u); !bytes.Equal(got, model) {
		t.Fatal("sealed layer that is still open reads differently")
	}
	closed(t, u)
	f, err := lsmt.OpenFile(files.Data)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sealed, err := lsmt.Open(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	var layers []*lsmt.Layer
	if lower != nil {
		var b bytes.Buffer
		if err := lsmt.CommitDisk(t.Context(), &b, lower, lsmt.DiskOptions{Identity: lsmt.Identity{VirtualSize: int64(len(model))}}); err != nil {
			t.Fatal(err)
		}
		l, err := lsmt.Open(t.Context(), memory(b.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, l)
	}
	image, err := lsmt.Stack(append(layers, sealed))
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, image); !bytes.Equal(got, model) {
		t.Fatalf("sealed layer differs in sector %d", differs(got, model))
	}
	var b bytes.Buffer
	if err := sealed.Commit(t.Context(), &b, lsmt.Identity{}); err != nil {
		t.Fatal(err)
	}
	committed, err := lsmt.Open(t.Context(), memory(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	image, err = lsmt.Stack(append(layers, committed))
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, image); !bytes.Equal(got, model) {
		t.Fatalf("committed layer differs in sector %d", differs(got, model))
	}
	// It opens as a writable one again, with the index it had.
	again, err := lsmt.OpenUpper(t.Context(), files, lower)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := readAll(t, again); !bytes.Equal(got, model) {
		t.Fatalf("reopened sealed layer differs in sector %d", differs(got, model))
	}
}

// TestConcurrent writes, discards, flushes and reads disjoint parts of a disk
// at once.
func TestConcurrent(t *testing.T) {
	kinds(t, func(t *testing.T, sparse bool) {
		const workers, share = 8, 250 // sectors: neighbours share a block
		size := workers * share * lsmt.SectorSize
		below := sectors(7, workers*share)
		lower := memory(below)
		u, files := newUpper(t, sparse, int64(size), lower)
		model := bytes.Clone(below)
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				work(t, u, rand.New(rand.NewPCG(uint64(w), 5)), model, w*share, share)
			})
		}
		wg.Wait()
		if got := readAll(t, u); !bytes.Equal(got, model) {
			t.Fatalf("sector %d reads differently", differs(got, model))
		}
		closed(t, u)
		if got := checkFiles(t, files, below, size); !bytes.Equal(got, model) {
			t.Fatalf("another reader of the files sees something else in sector %d", differs(got, model))
		}
	})
}

// work changes and reads n sectors from first on.
func work(t *testing.T, u *lsmt.Upper, rnd *rand.Rand, model []byte, first, n int) {
	own := model[first*lsmt.SectorSize : (first+n)*lsmt.SectorSize]
	for i := range 300 {
		at := rnd.IntN(n)
		length := 1 + rnd.IntN(n-at)
		off, part := int64(first+at)*lsmt.SectorSize, own[at*lsmt.SectorSize:(at+length)*lsmt.SectorSize]
		var err error
		switch rnd.IntN(6) {
		case 0:
			clear(part)
			err = u.Discard(t.Context(), off, int64(len(part)))
		case 1:
			err = u.Flush(t.Context())
		case 2:
			p := make([]byte, len(part))
			if _, err = u.ReadAt(t.Context(), p, off); err == nil && !bytes.Equal(p, part) {
				t.Errorf("sectors %d to %d read differently", first+at, first+at+length)
				return
			}
		default:
			copy(part, sectors(i, length))
			_, err = u.WriteAt(t.Context(), part, off)
		}
		if err != nil {
			t.Error(err)
			return
		}
	}
}
