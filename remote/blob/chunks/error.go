package chunks

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Error is the error of a read that met bytes with a wrong hash, and still did
// after they had been read again from wherever else they are.
type Error struct {
	// Blob is the digest of the blob that is read.
	Blob digest.Digest
	// Leaf is the number of the chunk, or -1 for a part of the chunk table.
	Leaf int64
	// Offset and Length are where it lies in its blob, in bytes; a detached
	// table is a blob of its own.
	Offset, Length int64
	// Origins are the hosts that served it wrong ("scheme://host"), in the
	// order in which they were asked; empty if the source has none.
	Origins []string
	// Err, if not nil, is what is wrong besides the hash.
	Err error

	temporary bool
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Leaf < 0 {
		fmt.Fprintf(&b, "blob %s: chunk table: the %d bytes at offset %d", e.Blob, e.Length, e.Offset)
	} else {
		fmt.Fprintf(&b, "blob %s: chunk %d: the %d bytes at offset %d", e.Blob, e.Leaf, e.Length, e.Offset)
	}
	b.WriteString(" do not have the SHA-256 they should")
	if len(e.Origins) > 0 {
		fmt.Fprintf(&b, ", as served by %s", strings.Join(e.Origins, ", "))
	}
	if e.temporary {
		b.WriteString("; another host could not be asked")
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns what is wrong besides the hash.
func (e *Error) Unwrap() error { return e.Err }

// Temporary implements blob.Temporary: the bytes may be right later if one of
// the hosts could not be asked.
func (e *Error) Temporary() bool { return e.temporary }

// Observer is told about every chunk that is wrong, and every part of a chunk
// table. It is called on the reading goroutine, in parallel.
type Observer interface {
	// VerifyFailed is called for bytes of the blob dgst whose hash is wrong:
	// those of chunk number leaf (-1: a part of the chunk table), length
	// bytes at offset. origin ("scheme://host") is who served them, "" if
	// that is not known: a cache had them, or another read fetched them. If
	// several served a part of them, it is called once for each.
	VerifyFailed(dgst digest.Digest, leaf, offset, length int64, origin string)
}
