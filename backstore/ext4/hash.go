package ext4

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
)

const (
	hashHalfMD4 = 1
	indexInfo   = 24 // bytes before the index's description in the first block
	indexLevels = 3
)

// lookupHashed finds the block of a directory that name would be in by its hash,
// and visits what is in it. It reports false if that does not tell: it is an
// unusual hash, or names of one hash are in several blocks.
func (m *Image) lookupHashed(ctx context.Context, dir *Inode, name string, visit func(string, uint64) error) (bool, error) {
	b, err := m.dirBlock(ctx, dir, 0)
	if err != nil {
		return false, err
	}
	version, info, levels := b[indexInfo+4], int(b[indexInfo+5]), int(b[indexInfo+6])
	if version != hashHalfMD4 {
		return false, nil
	}
	if levels >= indexLevels {
		return false, fmt.Errorf("%w: index of directory %d has %d levels", ErrFormat, dir.Number, levels)
	}
	hash := halfMD4(name, m.sb.seed, m.sb.unsignedHash)
	b = b[indexInfo+info:]
	clear := true // no name of this hash is elsewhere
	for ; ; levels-- {
		block, only, ok := indexed(b, hash)
		if !ok {
			return false, fmt.Errorf("%w: index of directory %d is damaged", ErrFormat, dir.Number)
		}
		clear = clear && only
		if b, err = m.dirBlock(ctx, dir, block); err != nil {
			return false, err
		}
		if levels == 0 {
			return clear, m.dirents(b, dir, visit)
		}
		b = b[direntSize:] // it looks like one that is not in use
	}
}

// indexed returns the block in which a node of an index says that the hash is,
// and whether it says that it is in no other.
func indexed(b []byte, hash uint32) (block uint32, only, ok bool) {
	const size = 8
	le := binary.LittleEndian
	if len(b) < size {
		return 0, false, false
	}
	count := int(le.Uint16(b[2:]))
	if count == 0 || count*size > len(b) {
		return 0, false, false
	}
	k := 1 // the first has no hash of its own
	for k < count && le.Uint32(b[k*size:]) <= hash {
		k++
	}
	// Where the next begins with a hash that goes on there, its lowest bit is
	// set. What is next of the last one stands in another node.
	only = k == count || le.Uint32(b[k*size:]) != hash|1
	return le.Uint32(b[(k-1)*size+4:]), only, true
}

// halfMD4 is the hash of names that ext4 uses unless told otherwise. Bytes above
// 127 count as negative unless the file system is flagged.
func halfMD4(name string, seed [4]uint32, unsigned bool) uint32 {
	state := seed
	if seed == [4]uint32{} {
		state = [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}
	}
	for {
		transform(&state, words(name, unsigned))
		if len(name) <= 32 {
			break
		}
		name = name[32:]
	}
	hash := state[1] &^ 1
	if hash == 0xfffffffe { // is the end of a directory
		hash = 0xfffffffc
	}
	return hash
}

// words packs up to 32 bytes of a name, filled up with its length.
func words(name string, unsigned bool) (out [8]uint32) {
	pad := uint32(len(name)) | uint32(len(name))<<8
	pad |= pad << 16
	n := min(len(name), 32)
	for i := range out {
		out[i] = pad
		for k := 4 * i; k < min(4*i+4, n); k++ {
			c := uint32(name[k])
			if !unsigned {
				c = uint32(int32(int8(name[k])))
			}
			out[i] = c + out[i]<<8
		}
	}
	return out
}

// transform is the three rounds of MD4, cut down to eight words.
func transform(state *[4]uint32, in [8]uint32) {
	a, b, c, d := state[0], state[1], state[2], state[3]
	round := func(f func(x, y, z uint32) uint32, k uint32, order [8]int, shifts [4]int) {
		for i, w := range order {
			a += f(b, c, d) + in[w] + k
			a, b, c, d = d, bits.RotateLeft32(a, shifts[i%4]), b, c
		}
	}
	round(func(x, y, z uint32) uint32 { return z ^ x&(y^z) }, 0, [8]int{0, 1, 2, 3, 4, 5, 6, 7}, [4]int{3, 7, 11, 19})
	round(func(x, y, z uint32) uint32 { return x&y + (x^y)&z }, 0x5a827999, [8]int{1, 3, 5, 7, 0, 2, 4, 6}, [4]int{3, 5, 9, 13})
	round(func(x, y, z uint32) uint32 { return x ^ y ^ z }, 0x6ed9eba1, [8]int{3, 7, 2, 6, 1, 5, 0, 4}, [4]int{3, 9, 11, 15})
	state[0] += a
	state[1] += b
	state[2] += c
	state[3] += d
}
