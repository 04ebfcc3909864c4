package convert

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cmd/internal/transfer"
	"github.com/reprise-containers/reprise/remote/blob"
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
		err := transfer.Fetch(ctx, b, pw, l.bar)
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
