package policy_test

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/reprise-containers/reprise/cache/policy"
)

// brute is a policy as its definition says, without regard to cost: entries lie in
// one slice, the one that came first at its start, and a victim is looked for in all
// of them.
type brute struct {
	choose  func(b *brute) int // index of the victim
	entries []*bruteEntry
	now     int     // calls so far
	age     float64 // GDSF
	hand    int     // SIEVE: key of the entry to look at next, -1 for the oldest
}

type bruteEntry struct {
	key        int
	size, read int64
	uses       int64
	last       int     // when it was used last, its coming included
	recent     int     // the same for LRU, which does not ask how much was read
	base       float64 // the age then
}

func (e *bruteEntry) fresh() int64 {
	if e.size == 0 {
		return 0
	}
	return (e.read + e.size/4) / e.size
}

func (b *brute) find(key int) int {
	return slices.IndexFunc(b.entries, func(e *bruteEntry) bool { return e.key == key })
}

func (b *brute) Add(key int, n int64) {
	b.now++
	i := b.find(key)
	if i < 0 {
		e := &bruteEntry{key: key, size: max(n, 0), uses: 1, last: b.now, recent: b.now, base: b.age}
		b.entries = append(b.entries, e)
		return
	}
	e := b.entries[i]
	e.size = max(0, e.size+n)
	if n > 0 {
		e.recent = b.now
	}
}

// Touch counts bytes as the policies that take whole uses off them: those with one bit
// cannot tell the difference, as they forget them all when they spare an entry.
func (b *brute) Touch(key int, n int64, bit bool) {
	b.now++
	i := b.find(key)
	if i < 0 {
		return
	}
	e := b.entries[i]
	e.recent = b.now
	e.read += n
	if bit {
		e.read = min(e.read, max(e.size, 1))
		return
	}
	if times := e.fresh(); times > 0 {
		e.read = max(0, e.read-times*e.size)
		e.uses += times
		e.last, e.base = b.now, b.age
	}
}

func (b *brute) Remove(key int) {
	if i := b.find(key); i >= 0 {
		b.drop(i)
	}
}

func (b *brute) drop(i int) {
	if b.entries[i].key == b.hand {
		b.hand = -1
		if i+1 < len(b.entries) {
			b.hand = b.entries[i+1].key
		}
	}
	b.entries = slices.Delete(b.entries, i, i+1)
}

func (b *brute) Victim() (key int, size int64, ok bool) {
	if len(b.entries) == 0 {
		return 0, 0, false
	}
	i := b.choose(b)
	e := b.entries[i]
	b.drop(i)
	return e.key, e.size, true
}

// least returns the index of the entry with the lowest rank, of equals the one used
// longest ago.
func (b *brute) least(rank func(*bruteEntry) float64) int {
	best := 0
	for i, e := range b.entries {
		x, y := rank(e), rank(b.entries[best])
		if x < y || x == y && e.last < b.entries[best].last {
			best = i
		}
	}
	return best
}

func gdsfRank(e *bruteEntry) float64 { return e.base + float64(e.uses)/float64(max(e.size, 1)) }

// choices are the definitions, and bits the policies that know of an entry only
// whether it was used.
var (
	choices = map[string]func(*brute) int{
		policy.NameLRU:  func(b *brute) int { return b.least(func(e *bruteEntry) float64 { return float64(e.recent) }) },
		policy.NameFIFO: func(*brute) int { return 0 },
		policy.NameLFU:  func(b *brute) int { return b.least(func(e *bruteEntry) float64 { return float64(e.uses) }) },
		policy.NameGDSF: func(b *brute) int {
			i := b.least(gdsfRank)
			b.age = max(b.age, gdsfRank(b.entries[i]))
			return i
		},
		policy.NameCLOCK: func(b *brute) int {
			for b.entries[0].fresh() > 0 {
				b.entries[0].read = 0
				b.entries = append(b.entries[1:], b.entries[0])
			}
			return 0
		},
		policy.NameSIEVE: func(b *brute) int {
			i := max(0, b.find(b.hand))
			for b.entries[i].fresh() > 0 {
				b.entries[i].read = 0
				i = (i + 1) % len(b.entries)
			}
			b.hand = b.entries[i].key
			return i
		},
	}
	bits = []string{policy.NameCLOCK, policy.NameSIEVE}
)

// play makes the calls that ops says, four bytes each, on the policy and on its
// definition, and compares every victim.
func play(t *testing.T, name string, ops []byte) {
	t.Helper()
	p, b := newPolicy(t, name), &brute{choose: choices[name], hand: -1}
	bit := slices.Contains(bits, name)
	for i := 0; len(ops) >= 4; i++ {
		op, key, n := ops[0]%8, int(ops[1]%64), int64(binary.LittleEndian.Uint16(ops[2:]))%5000
		ops = ops[4:]
		switch op {
		case 0, 1:
			p.Add(key, n)
			b.Add(key, n)
		case 2, 3, 4:
			p.Touch(key, n)
			b.Touch(key, n, bit)
		case 5:
			p.Add(key, -n/3)
			b.Add(key, -n/3)
		case 6:
			if n%4 == 0 {
				p.Remove(key)
				b.Remove(key)
			}
		case 7:
			got, size, ok := p.Victim()
			want, wantSize, wantOK := b.Victim()
			if ok != wantOK || ok && (got != want || size != wantSize) {
				t.Fatalf("%s, call %d: victim %d of %d bytes, %t; want %d, %d, %t", name, i, got, size, ok, want, wantSize, wantOK)
			}
		}
		if p.Len() != len(b.entries) {
			t.Fatalf("%s, call %d: %d entries, want %d", name, i, p.Len(), len(b.entries))
		}
	}
}

func randomOps(rng *rand.Rand, calls int) []byte {
	ops := make([]byte, 0, 4*calls)
	for range calls {
		ops = binary.LittleEndian.AppendUint32(ops, rng.Uint32())
	}
	return ops
}

// TestBrute compares every victim of growing, partly read entries with the definition.
func TestBrute(t *testing.T) {
	for name := range choices {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(10) {
				play(t, name, randomOps(rand.New(rand.NewPCG(seed, 11)), 8_000))
			}
		})
	}
}

// TestBruteCache does so with entries of one size in a cache that is always full.
func TestBruteCache(t *testing.T) {
	for name, choose := range choices {
		t.Run(name, func(t *testing.T) {
			for _, c := range []int{1, 2, 7, 64} {
				rng := rand.New(rand.NewPCG(uint64(c), 13))
				got := &asked{newPolicy(t, name), c, 1, map[int]bool{}, false}
				want := &bruteCache{brute{choose: choose, hand: -1}, c, slices.Contains(bits, name)}
				agree(t, got, want, stream(rng, 10_000, 3*c+1))
			}
		})
	}
}

type bruteCache struct {
	brute
	c   int
	bit bool
}

func (b *bruteCache) access(key int) (hit bool, victim int) {
	if b.find(key) >= 0 {
		b.Touch(key, 1, b.bit)
		return true, -1
	}
	victim = -1
	if len(b.entries) == b.c {
		victim, _, _ = b.Victim()
	}
	b.Add(key, 1)
	return false, victim
}

// FuzzBrute does what TestBrute does with calls of the fuzzer's choice.
func FuzzBrute(f *testing.F) {
	f.Add(randomOps(rand.New(rand.NewPCG(1, 1)), 200))
	f.Fuzz(func(t *testing.T, ops []byte) {
		for name := range choices {
			play(t, name, ops)
		}
	})
}

// FuzzCalls makes the fuzzer's calls on all policies and compares length and bytes
// with a map; what is remembered of victims stays bounded, and each entry is a victim
// in the end.
func FuzzCalls(f *testing.F) {
	f.Add(randomOps(rand.New(rand.NewPCG(2, 2)), 500))
	f.Fuzz(func(t *testing.T, ops []byte) {
		for _, name := range names {
			calls(t, name, ops)
		}
	})
}

func calls(t *testing.T, name string, ops []byte) {
	t.Helper()
	p, model, bytes, most := newPolicy(t, name), map[int]int64{}, int64(0), 0
	grow := func(key int, n int64) {
		before, held := model[key]
		model[key] = max(0, before+n)
		bytes += model[key] - before
		p.Add(key, n)
		if !held {
			most = max(most, len(model))
		}
	}
	victim := func() {
		key, size, ok := p.Victim()
		want, held := model[key]
		if ok != (len(model) > 0) || ok && (!held || want != size) {
			t.Fatalf("%s: victim %d of %d bytes, %t; the model has %d, %t", name, key, size, ok, want, held)
		}
		delete(model, key)
		bytes -= size
	}
	for ; len(ops) >= 4; ops = ops[4:] {
		key, n := int(ops[1])|int(ops[0]>>3)<<8, int64(binary.LittleEndian.Uint16(ops[2:]))
		switch ops[0] % 8 {
		case 0, 1, 2:
			grow(key, n)
		case 3:
			p.Touch(key, n)
		case 4:
			grow(key, -n)
		case 5:
			p.Remove(key)
			bytes -= model[key]
			delete(model, key)
		case 6:
			x, ok := p.(policy.Expectant[int])
			if _, held := model[key]; ok && !held {
				x.Expect(key)
			}
		case 7:
			victim()
		}
		if p.Len() != len(model) || p.Bytes() != bytes {
			t.Fatalf("%s: %d entries, %d bytes; want %d, %d", name, p.Len(), p.Bytes(), len(model), bytes)
		}
		if g := policy.Ghosts(p); g > most+64 {
			t.Fatalf("%s: %d remembered, at most %d were held", name, g, most)
		}
	}
	for range len(model) + 1 {
		victim()
	}
}
