package backstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore/tarblob"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
)

// ChunksMember is the name of the tar member with the chunk table of the bytes
// before it.
const ChunksMember = "overlaybd.chunks"

// rawLeaf is the length in bytes of leaves in a payload without compression, the
// size of the blocks that a file system reads.
const rawLeaf = 4 << 10

// ChunkTarget is a finished layer blob in a file. An *os.File is one.
type ChunkTarget interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
}

// AppendChunks adds the chunk table of f, a tar archive of size bytes around a
// layer, to the archive as its second member, and returns where the table lies and
// digest and size of the blob that f then holds. It reads each byte once. With an
// error, f is no layer blob any more.
//
// Each ZFile block is a leaf, so that verifying a read never needs a byte that
// decompressing it does not. docs/benchmarks.md has what longer ones cost.
func AppendChunks(ctx context.Context, f ChunkTarget, size int64) (chunks.Ref, digest.Digest, int64, error) {
	ref, sum, end, err := appendChunks(ctx, f, size)
	if err != nil {
		return chunks.Ref{}, "", 0, fmt.Errorf("appending chunk table: %w", err)
	}
	return ref, sum, end, nil
}

func appendChunks(ctx context.Context, f ChunkTarget, size int64) (ref chunks.Ref, sum digest.Digest, end int64, err error) {
	r := localFile{f, size}
	l, err := layoutOf(ctx, r)
	if err != nil {
		return ref, "", 0, err
	}
	if !l.tar {
		return ref, "", 0, errors.New("layer blob is no tar archive")
	}
	l.end = l.payload.Next()
	if err := onlyZeros(f, l.end, size); err != nil {
		return ref, "", 0, err
	}
	hash := sha256.New()
	table, root, err := chunks.Build(ctx, io.TeeReader(io.NewSectionReader(f, 0, l.end), hash), l.leaves, 0)
	if err != nil {
		return ref, "", 0, err
	}
	header, err := tarblob.MemberHeader(ChunksMember, int64(len(table)))
	if err != nil {
		return ref, "", 0, err
	}
	ref = chunks.Ref{Root: root, Offset: l.end + int64(len(header)), Size: int64(len(table))}
	at := l.end
	for _, b := range [][]byte{header, table, make([]byte, padding(len(table))+tarblob.EndSize)} {
		hash.Write(b)
		if _, err := f.WriteAt(b, at); err != nil {
			return ref, "", 0, fmt.Errorf("writing the second tar member: %w", err)
		}
		at += int64(len(b))
	}
	if err := f.Truncate(at); err != nil {
		return ref, "", 0, err
	}
	return ref, digest.NewDigest(digest.SHA256, hash), at, nil
}

// padding returns how many bytes a tar member of n bytes is followed by.
func padding(n int) int64 {
	whole := tarblob.Range{Size: int64(n)}
	return whole.Next() - whole.Size
}

// BuildChunks returns a detached chunk table of the layer blob r, in any form, its
// root digest, and the digest of r, all of which it reads once. The table's Ref
// has Offset 0 and Size len(table). Leaves are those of AppendChunks.
func BuildChunks(ctx context.Context, r blob.ReaderAt) (table []byte, root, blobDigest digest.Digest, err error) {
	l, err := layoutOf(ctx, r)
	if err != nil {
		return nil, "", "", fmt.Errorf("building chunk table: %w", err)
	}
	hash := sha256.New()
	table, root, err = chunks.Build(ctx, io.TeeReader(sequential(ctx, r), hash), l.leaves, 0)
	if err != nil {
		return nil, "", "", fmt.Errorf("of %s: %w", blob.Name(r), err)
	}
	return table, root, digest.NewDigest(digest.SHA256, hash), nil
}

// FindChunks returns where in the layer blob r, which d describes, its chunk
// table lies, or false if it has none. It reads one tar block.
func FindChunks(ctx context.Context, r blob.ReaderAt, d Description) (tarblob.Range, bool, error) {
	if !d.Tar {
		return tarblob.Range{}, false, nil
	}
	m, ok, err := tarblob.NextMember(ctx, r, d.Payload)
	if !ok || m.Name != ChunksMember {
		return tarblob.Range{}, false, err
	}
	return m.Range, true, err
}

// layout is what the leaves of a blob follow.
type layout struct {
	tar     bool
	payload tarblob.Range
	z       *zfile.Reader // nil: the payload is not compressed
	end     int64         // of the covered bytes
}

func layoutOf(ctx context.Context, r blob.ReaderAt) (layout, error) {
	l := layout{payload: tarblob.Range{Size: r.Size()}, end: r.Size()}
	head := make([]byte, min(tarblob.HeadSize, r.Size()))
	if err := blob.ReadFull(ctx, r, head, 0); err != nil {
		return l, fmt.Errorf("reading the start of %s: %w", blob.Name(r), err)
	}
	at, ok, err := tarblob.Locate(head, r.Size())
	if err != nil {
		return l, err
	}
	if ok {
		l.tar, l.payload = true, at
	}
	l.z, err = zfile.Open(ctx, tarblob.Payload(r, l.payload))
	if errors.Is(err, zfile.ErrFormat) {
		return l, nil
	}
	return l, err
}

var _ iter.Seq[int] = layout{}.leaves

// leaves yields the lengths of the leaves of [0, l.end).
func (l layout) leaves(yield func(int) bool) {
	if l.z == nil {
		_ = pieces(0, l.payload.Offset, chunks.PlainLeaf, yield) &&
			pieces(l.payload.Offset, l.payload.Offset+l.payload.Size, rawLeaf, yield) &&
			pieces(l.payload.Offset+l.payload.Size, l.end, chunks.PlainLeaf, yield)
		return
	}
	end := l.payload.Offset + zfile.HeaderSize // of the blocks
	if l.z.Blocks() > 0 {
		first, _ := l.z.BlockExtent(0)
		last, n := l.z.BlockExtent(l.z.Blocks() - 1)
		if !pieces(0, l.payload.Offset+first, chunks.PlainLeaf, yield) || !l.blocks(yield) {
			return
		}
		end = l.payload.Offset + last + n
	} else if !pieces(0, end, chunks.PlainLeaf, yield) {
		return
	}
	pieces(end, l.end, chunks.PlainLeaf, yield)
}

// blocks yields the lengths of the leaves in the ZFile's blocks.
func (l layout) blocks(yield func(int) bool) bool {
	for i := range l.z.Blocks() {
		_, n := l.z.BlockExtent(i)
		piece := n
		if n > chunks.MaxLeaf { // overlaybd's reader can't read it either
			piece = chunks.PlainLeaf
		}
		if !pieces(0, n, piece, yield) {
			return false
		}
	}
	return true
}

// pieces yields the lengths of pieces of [off, end).
func pieces(off, end, piece int64, yield func(int) bool) bool {
	for ; off < end; off += piece {
		if !yield(int(min(piece, end-off))) {
			return false
		}
	}
	return true
}

// onlyZeros reports anything but zeros in [off, end) of f.
func onlyZeros(f io.ReaderAt, off, end int64) error {
	buf, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for off < end {
		n := min(int64(len(buf)), end-off)
		if k, err := f.ReadAt(buf[:n], off); int64(k) < n {
			return fmt.Errorf("reading the end of the tar archive: %w", err)
		}
		if !bytes.Equal(buf[:n], zeros[:n]) {
			return fmt.Errorf("tar archive has more than one member: no zeros at offset %d", off)
		}
		off += n
	}
	return nil
}

// localFile is a finished file of known size as a blob.ReaderAt.
type localFile struct {
	io.ReaderAt
	size int64
}

// Size implements blob.ReaderAt.
func (f localFile) Size() int64 { return f.size }

// ReadAt implements blob.ReaderAt.
func (f localFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return f.ReaderAt.ReadAt(p, off)
}

// String names the file in errors.
func (f localFile) String() string { return "layer blob" }

// readFunc is an io.Reader.
type readFunc func(p []byte) (int, error)

// Read implements io.Reader.
func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// sequential reads r from its start to its end, in the pieces it is asked for.
func sequential(ctx context.Context, r blob.ReaderAt) io.Reader {
	off := int64(0)
	return readFunc(func(p []byte) (int, error) {
		p = p[:min(int64(len(p)), r.Size()-off)]
		if len(p) == 0 {
			return 0, io.EOF
		}
		if err := blob.ReadFull(ctx, r, p, off); err != nil {
			return 0, err
		}
		off += int64(len(p))
		return len(p), nil
	})
}
