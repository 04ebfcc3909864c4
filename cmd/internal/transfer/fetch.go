package transfer

import (
	"context"
	"fmt"
	"io"
	"iter"

	"github.com/reprise-containers/reprise/cmd/internal/pipeline"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/remote/blob"
)

const (
	readPiece    = 2 << 20 // bytes a request
	readParallel = 4       // requests in flight for a blob
)

// Fetch writes a blob to w, in order although pieces are read in parallel. If
// its digest is not the right one, that is an error at its end.
func Fetch(ctx context.Context, b blob.Blob, w io.Writer, bar *terminal.Bar) error {
	desc := b.Descriptor()
	sum := desc.Digest.Algorithm().Digester()
	read := func(ctx context.Context, off int64) ([]byte, error) {
		p := make([]byte, min(readPiece, desc.Size-off))
		err := blob.ReadFull(ctx, b, p, off)
		return p, err
	}
	err := pipeline.Run(ctx, readParallel, offsets(desc.Size), read, func(p []byte) error {
		bar.Add(int64(len(p)))
		_, _ = sum.Hash().Write(p)
		_, err := w.Write(p)
		return err
	})
	if err != nil {
		return err
	}
	if got := sum.Digest(); got != desc.Digest {
		return fmt.Errorf("the blob has digest %s, its descriptor says %s", got, desc.Digest)
	}
	return nil
}

// offsets yields where the pieces of size bytes begin.
func offsets(size int64) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		for off := int64(0); off < size; off += readPiece {
			if !yield(off) {
				return
			}
		}
	}
}

// progressReader tells a bar what is read.
type progressReader struct {
	*io.SectionReader
	bar *terminal.Bar
}

// Read implements io.Reader.
func (r *progressReader) Read(p []byte) (int, error) {
	n, err := r.SectionReader.Read(p)
	r.bar.Add(int64(n))
	return n, err
}

// ReadAt implements io.ReaderAt. What is sent a second time shows as such.
func (r *progressReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.SectionReader.ReadAt(p, off)
	r.bar.Set(off + int64(n))
	return n, err
}
