package presence_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/reprise-containers/reprise/cache/internal/presence"
)

const unit = presence.Unit

// model is a map of one bool per unit.
type model []bool

func (m model) has(off, n int64) bool {
	for u := off / unit; u*unit < off+n; u++ {
		if !m[u] {
			return false
		}
	}
	return true
}

func (m model) put(off, n int64, v bool) {
	for u := off / unit; u*unit < off+n; u++ {
		m[u] = v
	}
}

func (m model) blocks() (n int64) {
	for u := 0; u < len(m); u += presence.Block / unit {
		for _, v := range m[u:min(len(m), u+presence.Block/unit)] {
			if v {
				n++
				break
			}
		}
	}
	return n
}

func (m model) extent(off, end int64) (bool, int64) {
	u := off / unit
	for v := u; v*unit < end; v++ {
		if m[v] != m[u] {
			return m[u], v * unit
		}
	}
	return m[u], end
}

// TestModel compares random calls with one bool per unit.
func TestModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, size := range []int64{1, 511, 512, 4097, 1 << 20, 3<<20 + 700, 130 << 20} {
		m, want := presence.New(size), make(model, (size+unit-1)/unit)
		blocks := int64(0)
		for range 2000 {
			off := rng.Int64N(size)
			n := 1 + rng.Int64N(min(size-off, 1<<uint(1+rng.IntN(22))))
			switch rng.IntN(4) {
			case 0, 1:
				off = off / unit * unit
				n = min((n+unit-1)/unit*unit, size-off)
				vacant := m.Vacant(off, n)
				set, _ := m.Set(off, n)
				if set != vacant {
					t.Fatalf("Vacant says %d blocks, Set %d", vacant, set)
				}
				blocks += set
				want.put(off, n, true)
			case 2:
				freed, _ := m.Clear(off, n)
				blocks -= freed
				want.put(off, n, false)
			case 3:
				run := int(off / presence.Run)
				bits := m.Take(run)
				if m.Blocks(run) != 0 {
					t.Fatal("something is left of a run that was taken")
				}
				m.Restore(run, bits)
			}
			off = rng.Int64N(size)
			n = 1 + rng.Int64N(min(size-off, 1<<16))
			if m.Has(off, n) != want.has(off, n) {
				t.Fatalf("size %d: Has(%d, %d) is not %t", size, off, n, want.has(off, n))
			}
			off = off / unit * unit
			end := min(size, off+n)
			here, until := m.Extent(off, end)
			if wantHere, wantUntil := want.extent(off, end); here != wantHere || until != wantUntil {
				t.Fatalf("size %d: Extent(%d, %d) = %t, %d, want %t, %d", size, off, end, here, until, wantHere, wantUntil)
			}
		}
		if blocks != want.blocks() {
			t.Fatalf("size %d: %d blocks, want %d", size, blocks, want.blocks())
		}
		content := int64(0)
		for _, b := range m.Runs() {
			content += b.Content()
		}
		for _, v := range want {
			if v {
				content -= unit
			}
		}
		if content != 0 {
			t.Fatalf("size %d: the content is off by %d bytes", size, content)
		}
		id := presence.Identity{Digest: "sha256:ab", Size: size, Inode: 7}
		file := m.Append(nil, id)
		if int64(len(file)) > presence.FileLimit(size) {
			t.Errorf("size %d: the file is over its limit", size)
		}
		again, err := presence.Parse(file, id)
		if err != nil || !again.Has(0, 1) != !m.Has(0, 1) || !bytes.Equal(again.Append(nil, id), file) {
			t.Errorf("size %d: does not survive being written and read, %v", size, err)
		}
	}
}

// TestExtentAdvances has a unit that comes and goes while it is looked at.
func TestExtentAdvances(t *testing.T) {
	m := presence.New(4096)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100_000 {
			m.Set(0, unit)
			m.Clear(0, unit)
		}
	}()
	for {
		if _, until := m.Extent(0, 4096); until == 0 {
			t.Fatal("an empty extent")
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

func TestHugeBlobIsCheap(t *testing.T) {
	m := presence.New(presence.MaxSize)
	m.Set(presence.MaxSize-unit, unit)
	if !m.Has(presence.MaxSize-1, 1) || m.Empty() {
		t.Error("the last unit is not there")
	}
	if n := testing.AllocsPerRun(1, func() { presence.New(presence.MaxSize) }); n > 2 {
		t.Errorf("%v allocations", n)
	}
}

// sealed returns file with its checksum made right.
func sealed(file []byte) []byte {
	binary.LittleEndian.PutUint32(file[8:], crc32.Checksum(file[12:], crc32.MakeTable(crc32.Castagnoli)))
	return file
}

func TestParseRefuses(t *testing.T) {
	id := presence.Identity{Digest: "sha256:ab", Size: 2<<20 + 100, Inode: 7}
	m := presence.New(id.Size)
	m.Set(0, unit)
	m.Set(2<<20, 100)
	good := m.Append(nil, id)
	runs := 40 + len(id.Digest)
	change := func(f func([]byte) []byte) []byte { return f(bytes.Clone(good)) }
	for name, file := range map[string][]byte{
		"empty":     nil,
		"cut":       good[:len(good)-1],
		"longer":    append(bytes.Clone(good), 0),
		"magic":     change(func(b []byte) []byte { b[0]++; return b }),
		"bit":       change(func(b []byte) []byte { b[len(b)-1]++; return b }),
		"runs":      change(func(b []byte) []byte { b[32]++; return sealed(b) }),
		"many runs": change(func(b []byte) []byte { binary.LittleEndian.PutUint32(b[32:], 1<<32-1); return sealed(b) }),
		"digest":    change(func(b []byte) []byte { b[40]++; return sealed(b) }),
		"long name": change(func(b []byte) []byte { binary.LittleEndian.PutUint32(b[12:], 1<<32-1); return sealed(b) }),
		"inode":     change(func(b []byte) []byte { b[24]++; return sealed(b) }),
		"size":      change(func(b []byte) []byte { b[16]++; return sealed(b) }),
		"order":     change(func(b []byte) []byte { b[runs] = 2; return sealed(b) }),
		"far run":   change(func(b []byte) []byte { b[runs+260] = 3; return sealed(b) }),
		"past end":  change(func(b []byte) []byte { b[runs+260+4] |= 2; return sealed(b) }),
	} {
		if _, err := presence.Parse(file, id); !errors.Is(err, presence.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := presence.Parse(good, id); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	m := presence.New(5 << 20)
	m.Set(1<<20, 1<<20)
	f.Add(m.Append(nil, presence.Identity{Digest: "d", Size: 5 << 20, Inode: 1}), int64(5<<20))
	f.Add([]byte{}, int64(0))
	f.Fuzz(func(t *testing.T, data []byte, size int64) {
		if len(data) >= 40 {
			data = sealed(bytes.Clone(data))
		}
		id := presence.Identity{Digest: "d", Size: size, Inode: 1}
		m, err := presence.Parse(data, id)
		if err != nil {
			if !errors.Is(err, presence.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if again, err := presence.Parse(m.Append(nil, id), id); err != nil || again.Empty() != m.Empty() {
			t.Fatalf("what was read can't be written and read again: %v", err)
		}
	})
}

func BenchmarkHas(b *testing.B) {
	m := presence.New(300 << 20)
	m.Set(0, 300<<20)
	off := int64(0)
	for b.Loop() {
		if !m.Has(off, 4096) {
			b.Fatal(off)
		}
		off = (off + 1234567) % (299 << 20)
	}
}
