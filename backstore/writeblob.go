package backstore

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
)

// Blob is a layer blob that was written.
type Blob struct {
	// Digest and Size (bytes) describe it; as a tar archive that is not
	// compressed, its digest is its diff ID, too.
	Digest digest.Digest
	Size   int64
	// Chunks is where its chunk table is.
	Chunks chunks.Ref
}

// WriteBlob writes a layer blob with its chunk table to f, an empty file: what
// WriteLayer and then AppendChunks make of it. The bytes go through f twice, the
// second time from the page cache, for the digest.
func WriteBlob(ctx context.Context, f *os.File, opts zfile.Options, write func(w io.Writer) error) (Blob, error) {
	if err := WriteLayer(f, opts, write); err != nil {
		return Blob{}, err
	}
	st, err := f.Stat()
	if err != nil {
		return Blob{}, fmt.Errorf("writing layer blob: %w", err)
	}
	var b Blob
	b.Chunks, b.Digest, b.Size, err = AppendChunks(ctx, f, st.Size())
	return b, err
}
