package tier

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// Sizes of a frame's parts in bytes.
const (
	chunkSize = 64 << 10
	saltSize  = 8
	tagSize   = 16
	tailSize  = saltSize + tagSize
	frameSize = chunkSize + tailSize

	// maxSize is how large a blob can be: numbers of chunks have 32 bits.
	maxSize = chunkSize << 32
)

// framesOf returns how many frames a blob has.
func framesOf(size int64) int64 { return max(1, (size+chunkSize-1)/chunkSize) }

// objectSize returns the size of a blob's object.
func objectSize(size int64) int64 { return size + framesOf(size)*tailSize }

// blobSize is the reverse of objectSize; ok is false if no blob has such an object.
func blobSize(object int64) (size int64, ok bool) {
	if object < tailSize || object > 2*maxSize {
		return 0, false
	}
	size = object - (object+frameSize-1)/frameSize*tailSize
	return size, size <= maxSize && objectSize(size) == object
}

// chunkAt returns the size of a blob's chunk.
func chunkAt(size, index int64) int { return int(min(chunkSize, size-index*chunkSize)) }

// sealer makes and looks at the tails of one object's frames. It may be used
// concurrently.
type sealer struct{ aead cipher.AEAD }

func (t *Tier) sealerOf(d digest.Digest, o Object) (sealer, error) {
	info := fmt.Sprintf("object %s %d %d", d, o.Size, o.Generation)
	key, err := hkdf.Expand(sha256.New, t.key, info, 32)
	if err != nil {
		return sealer{}, fmt.Errorf("deriving the key of %s: %w", d, err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return sealer{}, fmt.Errorf("deriving the key of %s: %w", d, err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return sealer{}, fmt.Errorf("deriving the key of %s: %w", d, err)
	}
	return sealer{aead}, nil
}

// seal writes the tail of a chunk; its first saltSize bytes are set.
func (s sealer) seal(tail, chunk []byte, index int64) {
	nonce := nonceOf(tail, index)
	s.aead.Seal(tail[saltSize:saltSize], nonce[:], nil, chunk)
}

// opens reports whether a tail is that of a chunk.
func (s sealer) opens(tail, chunk []byte, index int64) bool {
	nonce := nonceOf(tail, index)
	_, err := s.aead.Open(nil, nonce[:], tail[saltSize:tailSize], chunk)
	return err == nil
}

func nonceOf(tail []byte, index int64) (nonce [12]byte) {
	copy(nonce[:], tail[:saltSize])
	binary.BigEndian.PutUint32(nonce[saltSize:], uint32(index))
	return nonce
}
