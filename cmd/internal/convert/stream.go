package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cmd/internal/pipeline"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
	"github.com/reprise-containers/reprise/remote/blob"
)

const (
	readPiece    = 2 << 20 // bytes a request
	readParallel = 4       // requests in flight for a layer
)

// stream is the uncompressed tar of a layer of the source, with what happens
// to it on the way counted and checked.
type stream struct {
	desc   ocispec.Descriptor
	diffID digest.Digest
	out    *handover
	sum    digest.Digester // of the uncompressed bytes
	// plain says that those are the blob's own, which has the diff ID for its
	// digest: whoever fetches it compares that already.
	plain bool
}

// stream starts to read and inflate a blob, in goroutines of g, as far ahead as
// the buffers reach.
func (c *conversion) stream(ctx context.Context, g *errgroup.Group, b blob.Blob, l *layer) *stream {
	s := &stream{desc: b.Descriptor(), diffID: l.report.SourceID, out: newHandover(), sum: l.report.SourceID.Algorithm().Digester()}
	pr, pw := io.Pipe()
	g.Go(func() error {
		err := fetch(ctx, b, pw, l.bar)
		pw.CloseWithError(err) // io.EOF if nil
		// A reader that gave up has the better error.
		if errors.Is(err, io.ErrClosedPipe) {
			return nil
		}
		return l.wrap(err)
	})
	g.Go(func() error {
		err := c.inflate(ctx, s, pr)
		pr.CloseWithError(io.ErrClosedPipe)
		return l.wrap(err)
	})
	return s
}

// inflate hands the decompressed bytes of r over.
func (c *conversion) inflate(ctx context.Context, s *stream, r io.Reader) error {
	counted := &counter{r: r}
	plain, err := decompress(counted)
	if err != nil {
		return s.out.copyFrom(ctx, readerFunc(func([]byte) (int, error) { return 0, err }))
	}
	defer plain.Close()
	limited := &limited{r: plain, limits: c.cfg.Limits, compressed: counted}
	if _, compressed := plain.(named); !compressed && s.diffID == s.desc.Digest {
		s.plain = true
		return s.out.copyFrom(ctx, limited)
	}
	return s.out.copyFrom(ctx, io.TeeReader(limited, s.sum.Hash()))
}

// finish reads what the reader of the stream left, and checks all of it.
func (s *stream) finish(ctx context.Context) error {
	if _, err := io.Copy(io.Discard, s.out.reader(ctx)); err != nil {
		return err
	}
	if got := s.sum.Digest(); !s.plain && got != s.diffID {
		return fmt.Errorf("the uncompressed layer has digest %s, the config says %s", got, s.diffID)
	}
	return nil
}

// fetch writes a blob to w, in order although pieces are read in parallel. If
// its digest is not the right one, that is an error at its end.
func fetch(ctx context.Context, b blob.Blob, w io.Writer, bar *terminal.Bar) error {
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
