package sectors

import (
	"encoding/binary"
	"math/bits"
)

// Size is that of a sector in bytes.
const Size = 512

// magic begins every written sector.
const magic = 0x5245_5052_4953_4521

// stamp fills a sector with the content of operation seq of worker w: a header
// and, to the end, words that follow from it, so that any part that is of
// something else shows.
//
//	0  magic, 8 the load's seed, 16 worker, 20 sequence number, 24 sector, 32 words
func stamp(p []byte, seed uint64, w, seq uint32, sector int64) {
	le := binary.LittleEndian
	le.PutUint64(p, magic)
	le.PutUint64(p[8:], seed)
	le.PutUint32(p[16:], w)
	le.PutUint32(p[20:], seq)
	le.PutUint64(p[24:], uint64(sector))
	x := mix(seed ^ mix(uint64(w)<<32|uint64(seq)) ^ mix(uint64(sector)+magic))
	for i := 32; i < Size; i += 8 {
		x += 0x9e37_79b9_7f4a_7c15
		le.PutUint64(p[i:], x^bits.RotateLeft64(x, 23)*0xbf58_476d_1ce4_e5b9)
	}
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58_476d_1ce4_e5b9
	x = (x ^ x>>27) * 0x94d0_49bb_1331_11eb
	return x ^ x>>31
}

// content is what a sector was found to hold.
type content struct {
	kind   contentKind
	worker uint32
	seq    uint32
	sector int64
}

type contentKind int

const (
	zeros   contentKind = iota
	written             // whole, as its header says
	torn                // a header, but not what follows from it
	foreign             // neither zeros nor ours
)

// identify says what a sector holds. want is scratch space of a sector.
func identify(p, want []byte, seed uint64) content {
	le := binary.LittleEndian
	if le.Uint64(p) != magic || le.Uint64(p[8:]) != seed {
		if isZero(p) {
			return content{kind: zeros}
		}
		return content{kind: foreign}
	}
	c := content{written, le.Uint32(p[16:]), le.Uint32(p[20:]), int64(le.Uint64(p[24:]))}
	stamp(want, seed, c.worker, c.seq, c.sector)
	if string(want) != string(p) {
		c.kind = torn
	}
	return c
}

func isZero(p []byte) bool {
	for i := 0; i < len(p); i += 8 {
		if binary.LittleEndian.Uint64(p[i:]) != 0 {
			return false
		}
	}
	return true
}
