package origin

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"io"

	"github.com/opencontainers/go-digest"
)

// Content is a blob of bytes that nothing compresses and that are computed
// where they are read: the key stream of AES in counter mode. Equal seeds and
// sizes are equal blobs. It may be read concurrently.
type Content struct {
	// Digest is the SHA-256 of all bytes.
	Digest digest.Digest
	// Size is their number.
	Size int64

	block cipher.Block
}

// Random returns the content of a seed and computes its digest.
func Random(seed uint64, size int64) *Content {
	var key [16]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the key has the right length
	}
	c := &Content{Size: size, block: block}
	h := sha256.New()
	io.Copy(h, io.NewSectionReader(c, 0, size)) //nolint:errcheck // neither side fails
	c.Digest = digest.NewDigest(digest.SHA256, h)
	return c
}

// ReadAt implements io.ReaderAt.
func (c *Content) ReadAt(p []byte, off int64) (int, error) {
	if off >= c.Size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), c.Size-off)]
	clear(p)
	c.stream(off).XORKeyStream(p, p)
	if off+int64(len(p)) == c.Size {
		return len(p), io.EOF
	}
	return len(p), nil
}

// stream returns the key stream from an offset on.
func (c *Content) stream(off int64) cipher.Stream {
	var iv, skipped [aes.BlockSize]byte
	binary.BigEndian.PutUint64(iv[8:], uint64(off/aes.BlockSize))
	s := cipher.NewCTR(c.block, iv[:])
	part := skipped[:off%aes.BlockSize]
	s.XORKeyStream(part, part)
	return s
}

// Bytes returns all of it.
func (c *Content) Bytes() []byte {
	p := make([]byte, c.Size)
	c.ReadAt(p, 0) //nolint:errcheck // it is as long as the content
	return p
}

// literal is a body that is held in memory.
type literal []byte

func (l literal) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(l)) {
		return 0, io.EOF
	}
	n := copy(p, l[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
