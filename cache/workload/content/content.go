// Package content makes the content that stands for what a recorded registry had,
// of which a trace tells only name and size: blobs that do not compress and differ
// from each other, and manifests that list their layers. Content is a function of
// URI, size and a seed, so that whoever wants to push, hash or compare it makes it
// anew, and nothing is stored. Blobs that go by one name in several repositories are
// one blob, for the names are digests, or stand for digests.
package content

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// Maker makes content. It is safe for parallel use.
type Maker struct {
	block cipher.Block // nil: zeros
}

// New returns a maker whose content is decided by seed. With zero, blobs are zeros,
// as the original replayer's are: those of one size are one blob, and a registry that
// compresses or deduplicates stores next to nothing.
func New(seed uint64, zero bool) *Maker {
	if zero {
		return &Maker{}
	}
	key := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("trace-replayer content "), seed))
	block, err := aes.NewCipher(key[:aes.BlockSize])
	if err != nil {
		panic(err) // the key has the length of a key
	}
	return &Maker{block: block}
}

// Body returns the content of a blob: AES in counter mode, from a counter that is a
// hash of its name and size. A reader is for one goroutine; it seeks without making the
// bytes between.
func (m *Maker) Body(uri string, size int64) io.ReadSeeker {
	b := &body{maker: m, size: size}
	if m.block != nil {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(name(uri)+"\x00"), uint64(size)))
		copy(b.start[:], sum[:])
		b.seek(0)
	}
	return b
}

// name returns what of a URI decides the content: of a blob, all but the repository.
func name(uri string) string {
	if t := trace.Parse(uri); t.Kind == trace.Blob {
		return "blobs/" + t.Reference
	}
	return uri
}

// body is the content of a blob.
type body struct {
	maker  *Maker
	start  [aes.BlockSize]byte // the counter at offset 0
	stream cipher.Stream       // at offset at
	at     int64
	size   int64
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.at >= b.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), b.size-b.at)]
	clear(p)
	if b.stream != nil {
		b.stream.XORKeyStream(p, p)
	}
	b.at += int64(len(p))
	return len(p), nil
}

var errSeek = errors.New("seeking in content: there is no such place")

// Seek implements io.Seeker.
func (b *body) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += b.at
	case io.SeekEnd:
		offset += b.size
	default:
		return b.at, errSeek
	}
	if offset < 0 {
		return b.at, errSeek
	}
	b.seek(offset)
	return offset, nil
}

func (b *body) seek(offset int64) {
	b.at = offset
	if b.maker.block == nil {
		return
	}
	iv := b.start
	// 128-bit addition of the number of blocks before offset.
	low := binary.BigEndian.Uint64(iv[8:])
	sum := low + uint64(offset/aes.BlockSize)
	binary.BigEndian.PutUint64(iv[8:], sum)
	if sum < low {
		binary.BigEndian.PutUint64(iv[:8], binary.BigEndian.Uint64(iv[:8])+1)
	}
	b.stream = cipher.NewCTR(b.maker.block, iv[:])
	var skipped [aes.BlockSize]byte
	b.stream.XORKeyStream(skipped[:offset%aes.BlockSize], skipped[:offset%aes.BlockSize])
}

// Digest returns the digest of a blob.
func (m *Maker) Digest(ctx context.Context, uri string, size int64) (digest.Digest, error) {
	h := sha256.New()
	buf := make([]byte, 64<<10)
	for b := m.Body(uri, size); ; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := b.Read(buf)
		if errors.Is(err, io.EOF) {
			return digest.NewDigest(digest.SHA256, h), nil
		}
		h.Write(buf[:n])
	}
}
