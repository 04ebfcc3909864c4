package presence_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/reprise-containers/reprise/cache/internal/presence"
)

// model is a map of one bool per byte.
type model []bool

func (m model) has(off, n int64) bool { return !slices.Contains(m[off:off+n], false) }

func (m model) put(off, n int64, v bool) {
	for x := off; x < off+n; x++ {
		m[x] = v
	}
}

func (m model) blocks() (n int64) {
	for b := range slices.Chunk(m, presence.Block) {
		if slices.Contains(b, true) {
			n++
		}
	}
	return n
}

func (m model) content() (n int64) {
	for _, v := range m {
		if v {
			n++
		}
	}
	return n
}

func (m model) extent(off, end int64) (bool, int64) {
	x := off
	for x < end && m[x] == m[off] {
		x++
	}
	return m[off], x
}

// crowd returns how many ranges have a part in the block of the byte at x.
func (m model) crowd(x int64) (n int) {
	start := x / presence.Block * presence.Block
	last := false
	for _, v := range m[start:min(start+presence.Block, int64(len(m)))] {
		if v && !last {
			n++
		}
		last = v
	}
	return n
}

// follow compares m with the model want around the n bytes at off, which were
// set or cleared in both. What m has forgotten must be a whole range of a
// crowded block, and is then forgotten by want.
func follow(m *presence.Map, want model, off, n int64) error {
	size := int64(len(want))
	start := max(0, off/presence.Block*presence.Block-presence.Block)
	end := min(size, off+n+2*presence.Block)
	var forgotten [][2]int64
	for x := start; x < end; {
		here, until := m.Extent(x, end)
		switch {
		case here && !want.has(x, until-x):
			return fmt.Errorf("[%d,%d) are said to be present and are not all", x, until)
		case !here:
			for y := x; y < until; {
				held, next := want.extent(y, until)
				if held {
					forgotten = append(forgotten, [2]int64{y, next})
				}
				y = next
			}
		}
		x = until
	}
	for _, f := range forgotten {
		from, to := f[0], f[1]
		crowd := max(want.crowd(from), want.crowd(to-1))
		if whole := (from%presence.Run == 0 || !want[from-1]) && (to == size || to%presence.Run == 0 || !want[to]); !whole || crowd <= presence.BlockRanges {
			return fmt.Errorf("[%d,%d) was forgotten of a block with %d ranges", from, to, crowd)
		}
	}
	for _, f := range forgotten {
		want.put(f[0], f[1]-f[0], false)
	}
	return nil
}

// walk makes random calls on a map and on a model of it.
type walk struct {
	rng  *rand.Rand
	m    *presence.Map
	want model
	// what the calls said of these
	blocks, content int64
}

// span returns a random range, often a short one in the first two blocks.
func (w *walk) span() (off, n int64) {
	size := int64(len(w.want))
	if w.rng.IntN(3) == 0 {
		off = w.rng.Int64N(min(size, 2*presence.Block))
		return off, 1 + w.rng.Int64N(min(size-off, 60))
	}
	off = w.rng.Int64N(size)
	if w.rng.IntN(4) == 0 {
		off = off / 512 * 512
	}
	return off, 1 + w.rng.Int64N(min(size-off, 1<<uint(1+w.rng.IntN(21))))
}

func (w *walk) step() error {
	off, n := w.span()
	switch w.rng.IntN(4) {
	case 0, 1:
		vacant := w.m.Vacant(off, n)
		blocks, content := w.m.Set(off, n)
		if blocks > vacant {
			return fmt.Errorf("Vacant says %d blocks, Set %d", vacant, blocks)
		}
		w.blocks, w.content = w.blocks+blocks, w.content+content
		w.want.put(off, n, true)
	case 2:
		blocks, content := w.m.Clear(off, n)
		w.blocks, w.content = w.blocks-blocks, w.content-content
		w.want.put(off, n, false)
	case 3:
		run := int(off / presence.Run)
		taken := w.m.Take(run)
		if !w.m.Ranges(run).Empty() {
			return errors.New("something is left of a run that was taken")
		}
		if w.rng.IntN(2) == 0 { // into what came meanwhile
			piece := min(n, presence.Run-off%presence.Run)
			w.m.Set(off, piece)
			w.m.Restore(run, taken)
			w.want.put(off, piece, true)
			w.blocks, w.content = w.blocks-taken.Blocks(), w.content-taken.Content()
			w.blocks, w.content = w.blocks+w.m.Ranges(run).Blocks(), w.content+w.m.Ranges(run).Content()
		} else {
			w.m.Restore(run, taken)
		}
	}
	return follow(w.m, w.want, off, n)
}

// look compares what the map says of a random range.
func (w *walk) look() error {
	off, n := w.span()
	if w.m.Has(off, n) != w.want.has(off, n) {
		return fmt.Errorf("Has(%d, %d) is not %t", off, n, w.want.has(off, n))
	}
	here, until := w.m.Extent(off, off+n)
	if wantHere, wantUntil := w.want.extent(off, off+n); here != wantHere || until != wantUntil {
		return fmt.Errorf("Extent(%d, %d) = %t, %d, want %t, %d", off, off+n, here, until, wantHere, wantUntil)
	}
	return nil
}

// TestModel compares random calls with one bool per byte.
func TestModel(t *testing.T) {
	for size, steps := range map[int64]int{1: 100, 511: 1000, 4097: 3000, 1 << 20: 2000, 3<<20 + 700: 2000, 66<<20 + 1: 100} {
		w := &walk{rng: rand.New(rand.NewPCG(1, uint64(size))), m: presence.New(size), want: make(model, size)}
		for range steps {
			if err := errors.Join(w.step(), w.look()); err != nil {
				t.Fatalf("size %d: %v", size, err)
			}
		}
		if want := w.want.blocks(); w.blocks != want {
			t.Fatalf("size %d: %d blocks, want %d", size, w.blocks, want)
		}
		var blocks, content int64
		for _, r := range w.m.Runs() {
			blocks, content = blocks+r.Blocks(), content+r.Content()
		}
		if want := w.want.content(); w.content != want || content != want || blocks != w.blocks {
			t.Fatalf("size %d: %d bytes or %d, want %d; %d blocks, want %d", size, w.content, content, want, blocks, w.blocks)
		}
		id := presence.Identity{Digest: "sha256:ab", Size: size, Inode: 7}
		file := w.m.Append(nil, id)
		if int64(len(file)) > presence.FileLimit(size) {
			t.Errorf("size %d: the file is over its limit", size)
		}
		again, err := presence.Parse(file, id)
		if err != nil || !bytes.Equal(again.Append(nil, id), file) {
			t.Fatalf("size %d: does not survive being written and read, %v", size, err)
		}
		w.m = again
		for range steps {
			if err := w.look(); err != nil {
				t.Fatalf("size %d, read from a file: %v", size, err)
			}
		}
	}
}

// TestNeighbours has ranges that touch become one.
func TestNeighbours(t *testing.T) {
	m := presence.New(2 << 20)
	for off := int64(0); off < 2<<20; off += 1 << 10 {
		m.Set(off+100, 1<<10-100)
	}
	if m.Has(0, 101) || m.Has(1023, 2) || !m.Has(100, 924) {
		t.Error("a range has not the bounds it was set with")
	}
	for off := int64(0); off < 2<<20; off += 1 << 10 {
		m.Set(off, 100)
	}
	if here, until := m.Extent(1, 2<<20); !here || until != 2<<20 {
		t.Errorf("Extent ends at %d", until)
	}
	whole := presence.New(2 << 20)
	whole.Set(0, 2<<20)
	var id presence.Identity
	id.Size = 2 << 20
	if !bytes.Equal(m.Append(nil, id), whole.Append(nil, id)) {
		t.Error("something is left of the bounds between neighbours")
	}
}

// TestCrowd has more ranges in a block than are kept.
func TestCrowd(t *testing.T) {
	m := presence.New(1 << 20)
	for x := int64(0); x < presence.Block; x += 4 {
		m.Set(x, 1)
		if x/4 == 7 {
			m.Set(x+1, 2)
		}
	}
	if n := m.Ranges(0).Content(); n > presence.BlockRanges+2 {
		t.Errorf("%d bytes are held", n)
	}
	if !m.Has(28, 3) {
		t.Error("the longest range was forgotten")
	}
	blocks, content := m.Set(0, presence.Block)
	if blocks != 0 || content < presence.Block-presence.BlockRanges-2 || !m.Has(0, presence.Block) {
		t.Errorf("filling the block made %d blocks and %d bytes more", blocks, content)
	}
	for x := int64(0); x < presence.Run; x += 100 {
		m.Set(x, 1)
		m.Clear(x+1, 99)
	}
	file := m.Append(nil, presence.Identity{Size: 1 << 20})
	if n := len(file); n < presence.Run/40 || n > presence.Run/32+100 {
		t.Errorf("the map of a run of single bytes has %d bytes", n)
	}
}

// TestCrowdAcrossBlocks fills up the middle one of three blocks with a range
// that reaches into another one, which is or is not the one that is forgotten.
func TestCrowdAcrossBlocks(t *testing.T) {
	const start, end = presence.Block, 2 * presence.Block
	for name, c := range map[string]struct {
		ranges [][2]int64 // besides as many as there is room for, of 10 bytes
		blocks int64      // what the last of them adds
		held   [2]int64
	}{
		"the one before":         {[][2]int64{{start - 1, start + 1}, {end - 90, end - 80}}, -1, [2]int64{end - 90, end - 80}},
		"the one after":          {[][2]int64{{end - 1, end + 1}, {end - 90, end - 80}}, -1, [2]int64{end - 90, end - 80}},
		"a new one, from before": {[][2]int64{{end - 90, end - 85}, {start - 1, start + 10}}, 1, [2]int64{start - 1, start + 10}},
		"a new one, to after":    {[][2]int64{{end - 90, end - 85}, {end - 10, end + 1}}, 1, [2]int64{end - 10, end + 1}},
		"itself, from before":    {[][2]int64{{end - 90, end - 80}, {start - 1, start + 1}}, 0, [2]int64{end - 90, end - 80}},
		"itself, to after":       {[][2]int64{{end - 90, end - 80}, {end - 1, end + 1}}, 0, [2]int64{end - 90, end - 80}},
	} {
		m := presence.New(4 * presence.Block)
		for x := range int64(presence.BlockRanges - 1) {
			m.Set(start+50+x*20, 10)
		}
		var blocks int64
		for _, r := range c.ranges {
			blocks, _ = m.Set(r[0], r[1]-r[0])
		}
		if blocks != c.blocks || !m.Has(c.held[0], c.held[1]-c.held[0]) {
			t.Errorf("%s: %d blocks more, want %d; %t", name, blocks, c.blocks, m.Has(c.held[0], c.held[1]-c.held[0]))
		}
		if n := m.Ranges(0).Content(); n > presence.BlockRanges*10+2 {
			t.Errorf("%s: %d bytes are held", name, n)
		}
	}
	m := presence.New(4 * presence.Block)
	for x := range int64(presence.BlockRanges) {
		m.Set(start+50+x*20, 10)
	}
	if _, content := m.Clear(start+54, 1); content != 5 || !m.Has(start+55, 5) {
		t.Errorf("cutting a range in two took %d bytes", content)
	}
}

// TestExtentAdvances has a byte that comes and goes while it is looked at.
func TestExtentAdvances(t *testing.T) {
	m := presence.New(4096)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100_000 {
			m.Set(0, 1)
			m.Clear(0, 1)
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
	m.Set(presence.MaxSize-1, 1)
	if !m.Has(presence.MaxSize-1, 1) || m.Empty() {
		t.Error("the last byte is not there")
	}
	if n := testing.AllocsPerRun(1, func() { presence.New(presence.MaxSize) }); n > 2 {
		t.Errorf("%v allocations", n)
	}
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

// BenchmarkHasBlock is BenchmarkHas for compressed blocks, every second of which
// is present.
func BenchmarkHasBlock(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	m := presence.New(300 << 20)
	var blocks [][2]int64
	for off := int64(0); off < 299<<20; {
		n := 600 + rng.Int64N(2400)
		m.Set(off, n)
		blocks = append(blocks, [2]int64{off, n})
		off += n + 600 + rng.Int64N(2400)
	}
	i := 0
	for b.Loop() {
		x := blocks[i]
		if !m.Has(x[0], x[1]) {
			b.Fatal(x)
		}
		i = (i + 1234567) % len(blocks)
	}
}

// BenchmarkSetBlock sets the same ranges at random, in one run.
func BenchmarkSetBlock(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	m := presence.New(presence.Run)
	var blocks [][2]int64
	for off := int64(0); off < presence.Run-3000; {
		n := 600 + rng.Int64N(2400)
		blocks = append(blocks, [2]int64{off, n})
		off += n + 600 + rng.Int64N(2400)
	}
	rng.Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		m.Set(blocks[i][0], blocks[i][1])
		if i++; i == len(blocks) {
			m.Take(0)
			i = 0
		}
	}
}
