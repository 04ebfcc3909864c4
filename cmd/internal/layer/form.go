package layer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/tarblob"
	"github.com/reprise-containers/reprise/backstore/zfile"
)

// Form says what a layer is wrapped in.
type Form struct {
	// Compression is that of the ZFile around it; nil is none.
	Compression *zfile.Options
	// Tar is whether a tar archive is around that, as blobs in registries have it.
	Tar bool
	// Chunks is whether the archive has a chunk table, too.
	Chunks bool
}

// Validate reports what can't be.
func (f Form) Validate() error {
	if f.Chunks && !f.Tar {
		return errors.New("a chunk table is a member of a tar archive: there is none without")
	}
	return nil
}

// write writes the LSMT stream that commit writes to file, an empty one. Without
// a chunk table, it leaves the blob's digest to the caller.
func (f Form) write(ctx context.Context, file *os.File, commit func(io.Writer) error) (backstore.Blob, error) {
	if f.Chunks && f.Compression != nil {
		return backstore.WriteBlob(ctx, file, *f.Compression, commit)
	}
	var b backstore.Blob
	if err := f.plain(file, commit); err != nil {
		return b, err
	}
	st, err := file.Stat()
	if err != nil {
		return b, err
	}
	b.Size = st.Size()
	if f.Chunks {
		b.Chunks, b.Digest, b.Size, err = backstore.AppendChunks(ctx, file, b.Size)
	}
	return b, err
}

// plain writes all but the chunk table.
func (f Form) plain(file *os.File, commit func(io.Writer) error) error {
	switch {
	case f.Compression == nil && !f.Tar:
		return commit(file)
	case f.Compression == nil:
		archive, err := tarblob.NewUnsizedWriter(file)
		if err != nil {
			return err
		}
		if err := commit(archive); err != nil {
			return err
		}
		return archive.Close()
	case f.Tar:
		return backstore.WriteLayer(file, *f.Compression, commit)
	}
	opts := *f.Compression
	opts.FinalHeader = true
	_, err := zfile.Stream(file, opts, commit)
	return err
}

// sum returns the digest of the first size bytes of file.
func sum(ctx context.Context, file *os.File, size int64) (digest.Digest, error) {
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := file.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
		if n == 0 {
			return "", fmt.Errorf("reading %s: %w", file.Name(), err)
		}
		h.Write(buf[:n])
		off += int64(n)
	}
	return digest.NewDigest(digest.SHA256, h), nil
}
