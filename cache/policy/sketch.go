package policy

import "hash/maphash"

// sketch counts roughly how often keys were used lately, in constant memory: a
// count-min sketch of rows of counters to topCount, the least of a key's counters
// being its count ("An improved data stream summary", Cormode and Muthukrishnan
// 2005), of which only the least are raised, and all are halved once in a while
// ("TinyLFU: a highly efficient cache admission policy", Einziger et al., ACM TOS
// 2017).
type sketch[K comparable] struct {
	hash  func(K) uint64
	rows  [rows][]uint8 // a power of two long
	added int           // since the counters were halved
}

const (
	rows       = 4
	topCount   = 15
	minColumns = 256
	perEntry   = 2  // columns for each entry held
	sample     = 10 // uses for each entry held until the counters are halved
)

func newSketch[K comparable]() *sketch[K] {
	s := &sketch[K]{hash: hasher[K]()}
	for i := range s.rows {
		s.rows[i] = make([]uint8, minColumns)
	}
	return s
}

// hasher returns a hash of keys, for integers always the same, so that simulations
// can be repeated.
func hasher[K comparable]() func(K) uint64 {
	var none K
	switch any(none).(type) {
	case int:
		return func(k K) uint64 { return mix(uint64(any(k).(int))) }
	case uint32:
		return func(k K) uint64 { return mix(uint64(any(k).(uint32))) }
	case uint64:
		return func(k K) uint64 { return mix(any(k).(uint64)) }
	}
	seed := maphash.MakeSeed()
	return func(k K) uint64 { return maphash.Comparable(seed, k) }
}

// mix is the finalizer of SplitMix64 (Steele et al., OOPSLA 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// column returns where the key of hash h is counted in row i.
func (s *sketch[K]) column(h uint64, i int) int {
	h = (h&0xffffffff + uint64(i)*(h>>32|1)) * 0x9e3779b97f4a7c15
	return int(h>>32) & (len(s.rows[i]) - 1)
}

// count returns how often key was used lately, or more.
func (s *sketch[K]) count(key K) uint8 {
	h, least := s.hash(key), uint8(topCount)
	for i := range s.rows {
		least = min(least, s.rows[i][s.column(h, i)])
	}
	return least
}

// add counts a use of key while held entries are held.
func (s *sketch[K]) add(key K, held int) {
	for held*perEntry > len(s.rows[0]) {
		s.widen()
	}
	h, least := s.hash(key), s.count(key)
	if least < topCount {
		for i := range s.rows {
			if c := &s.rows[i][s.column(h, i)]; *c == least {
				*c++
			}
		}
	}
	if s.added++; s.added >= sample*max(held, minColumns/perEntry) {
		s.halve()
	}
}

// widen doubles the columns; all counts stay what they were.
func (s *sketch[K]) widen() {
	for i, row := range s.rows {
		s.rows[i] = append(append(make([]uint8, 0, 2*len(row)), row...), row...)
	}
}

func (s *sketch[K]) halve() {
	s.added /= 2
	for _, row := range s.rows {
		for i := range row {
			row[i] /= 2
		}
	}
}
