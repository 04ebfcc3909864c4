package lsmt_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
)

// commitDisk commits and opens disk.
func commitDisk(t *testing.T, disk blob.ReaderAt, opts lsmt.DiskOptions) *lsmt.Layer {
	t.Helper()
	var b bytes.Buffer
	if err := lsmt.CommitDisk(t.Context(), &b, disk, opts); err != nil {
		t.Fatal(err)
	}
	l, err := lsmt.Open(t.Context(), memory(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func checkStack(t *testing.T, want []byte, layers ...*lsmt.Layer) {
	t.Helper()
	image, err := lsmt.Stack(layers)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, image.Size())
	if _, err := image.ReadAt(t.Context(), got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the disk reads back differently")
	}
}

// randomDisk returns a disk of n bytes with data in some of its blocks.
func randomDisk(rnd *rand.Rand, n int) []byte {
	disk := make([]byte, n)
	for range n / 8192 {
		off, length := rnd.IntN(n), rnd.IntN(30000)
		for i := off; i < min(off+length, n); i++ {
			disk[i] = byte(rnd.Uint32() | 1)
		}
	}
	return disk
}

// TestCommitDisk commits random disks, whole and as what differs from another.
func TestCommitDisk(t *testing.T) {
	for seed := range uint64(10) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		before := randomDisk(rnd, 4<<20+rnd.IntN(20)*512)
		bottom := commitDisk(t, memory(before), lsmt.DiskOptions{})
		checkStack(t, before, bottom)

		now := bytes.Clone(before)
		for range 20 {
			off := rnd.IntN(len(now))
			part := now[off:min(off+rnd.IntN(50000), len(now))]
			if rnd.IntN(2) == 0 {
				clear(part)
			} else {
				copy(part, randomDisk(rnd, len(part)+8192))
			}
		}
		top := commitDisk(t, memory(now), lsmt.DiskOptions{Base: memory(before)})
		checkStack(t, now, bottom, top)
		same := commitDisk(t, memory(now), lsmt.DiskOptions{Base: memory(now)})
		if same.Len() != 0 {
			t.Errorf("equal disks differ in %d segments", same.Len())
		}
		checkStack(t, now, bottom, top, same)

		// An image as base knows where it holds data.
		base, err := lsmt.Stack([]*lsmt.Layer{bottom})
		if err != nil {
			t.Fatal(err)
		}
		again := commitDisk(t, memory(now), lsmt.DiskOptions{Base: base})
		if format(again.Segments(), 1) != format(top.Segments(), 1) {
			t.Error("the same base gives other segments when it is an image")
		}
	}
}

// TestCommitSparse: holes of a file are not read and not stored.
func TestCommitSparse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 64 << 30 // would take long to read
	data := bytes.Repeat([]byte("data"), 2048)
	for _, off := range []int64{0, 1 << 30, size - int64(len(data))} {
		if _, err := f.WriteAt(data, off); err != nil {
			t.Skip("no room for a sparse file:", err)
		}
	}
	if _, err := f.WriteAt(make([]byte, 8192), 5<<30); err != nil {
		t.Fatal(err)
	}
	disk, err := lsmt.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if _, end, err := disk.NextData(0); err != nil || end == size {
		t.Skip("file system has no holes")
	}
	l := commitDisk(t, disk, lsmt.DiskOptions{})
	want := "0 16 8\n2097152 16 24\n134217712 16 40\n"
	if got := format(l.Segments(), 1); got != want {
		t.Errorf("segments\n%swant\n%s", got, want)
	}
	l = commitDisk(t, disk, lsmt.DiskOptions{KeepZeros: true})
	want = "0 16 8\n2097152 16 24\n10485760 16 40\n134217712 16 56\n"
	if got := format(l.Segments(), 1); got != want {
		t.Errorf("with zeros: segments\n%swant\n%s", got, want)
	}
	image, err := lsmt.Stack([]*lsmt.Layer{l})
	if err != nil {
		t.Fatal(err)
	}
	start, end, err := image.NextData(1 << 20)
	if start != 1<<30 || end != 1<<30+8192 || err != nil {
		t.Errorf("next data at %d to %d, %v", start, end, err)
	}
	if _, _, err := image.NextData(size); err != io.EOF {
		t.Errorf("data after the end: %v", err)
	}
}

// TestCommitLongRuns: long runs of data become records of 16320 sectors, as
// upstream's.
func TestCommitLongRuns(t *testing.T) {
	l := commitDisk(t, memory(bytes.Repeat([]byte("x"), 20000*512)), lsmt.DiskOptions{})
	if got, want := format(l.Segments(), 1), "0 16320 8\n16320 3680 16328\n"; got != want {
		t.Errorf("segments\n%swant\n%s", got, want)
	}
}

// TestIdentity: what a layer says about itself survives, or is refused.
func TestIdentity(t *testing.T) {
	id := lsmt.Identity{
		UUID:   "3d8b79fe-5d5f-40ce-a25b-45f392bdf32b",
		Parent: "00000000-0000-0000-0000-000000000001",
		Tag:    strings.Repeat("t", 256),
	}
	l := commitDisk(t, memory(make([]byte, 8192)), lsmt.DiskOptions{Identity: id})
	id.UUID, id.VirtualSize = strings.ToUpper(id.UUID), 8192
	if l.Identity() != id || l.Kind() != "committed" {
		t.Errorf("%s %+v, want %+v", l.Kind(), l.Identity(), id)
	}
	for _, id := range []lsmt.Identity{
		{UUID: "short"},
		{Parent: "3d8b79fe-5d5f-40ce-a25b-45f392bdf32g"},
		{UUID: "3d8b79fe-5d5f-40ce-a25b-45f392bdf32b0"},
		{UUID: "3d8b79fe05d5f040ce0a25b045f392bdf32b"},
		{Tag: strings.Repeat("t", 257)},
		{VirtualSize: 8193},
		{VirtualSize: 4096},
		{VirtualSize: -512},
	} {
		opts := lsmt.DiskOptions{Identity: id}
		if err := lsmt.CommitDisk(t.Context(), io.Discard, memory(make([]byte, 8192)), opts); err == nil {
			t.Errorf("%+v was accepted", id)
		}
	}
}
