package check

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"iter"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/tarblob"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/cmd/internal/pipeline"
	"github.com/reprise-containers/reprise/remote/blob"
)

const (
	// pieceSize is how many bytes are read at once: enough that round trips
	// do not matter, little enough to have some in memory.
	pieceSize = 4 << 20
	// maxProblems bounds what is kept of one layer; a blob of garbage has
	// one problem per block.
	maxProblems = 100
	// maxReadErrors is how many failing pieces in a row end the reading of
	// a layer: its file or registry is gone.
	maxReadErrors = 4
)

var errGone = errors.New("layer cannot be read")

// checker checks one layer.
type checker struct {
	cfg    Config
	blob   blob.Blob
	opaque bool // not a layer of the device: only its digest is known

	res    Layer
	opened *lsmt.Layer
	parts  backstore.Description
	rooms  sync.Pool // of []byte: where blocks are decoded to
	leaves *leaves   // nil without a chunk table

	hash       hash.Hash
	failed     bool // some bytes could not be read
	readErrors int  // in a row
}

func (c *checker) problem(p Problem) {
	if len(c.res.Problems) == maxProblems {
		c.res.More++
		return
	}
	c.res.Problems = append(c.res.Problems, p)
}

// run fills c.res. Its error is that of ctx.
func (c *checker) run(ctx context.Context) error {
	desc := c.blob.Descriptor()
	c.res = Layer{Name: blob.Name(c.blob), Size: desc.Size, Claimed: desc.Digest != "", Trace: c.opaque}
	c.descriptor()
	if !c.opaque {
		c.structure(ctx)
		c.chunkTable(ctx)
		defer c.leaves.close()
	}
	algorithm := digest.Canonical
	if desc.Digest != "" {
		algorithm = desc.Digest.Algorithm()
	}
	c.hash = algorithm.Hash()
	err := pipeline.Run(ctx, c.cfg.Parallel, c.pieces(), c.piece, c.done)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && !errors.Is(err, errGone) {
		return err
	}
	if c.failed {
		return nil
	}
	c.res.Digest = digest.NewDigest(algorithm, c.hash)
	if desc.Digest != "" && c.res.Digest != desc.Digest {
		c.problem(Problem{Kind: Digest, Text: fmt.Sprintf("the bytes hash to %s, the descriptor says %s", c.res.Digest, desc.Digest)})
	}
	return nil
}

// structure opens the layer, which checks all that is not a block.
func (c *checker) structure(ctx context.Context) {
	var err error
	c.parts, err = backstore.Describe(ctx, c.blob)
	if err != nil {
		c.problem(Problem{Kind: Structure, Text: err.Error()})
	} else {
		c.opened = c.parts.Layer
		c.reach()
	}
	z := c.parts.ZFile
	if z == nil {
		return
	}
	c.res.Blocks, c.res.Checksums = z.Blocks(), z.Verified()
	if c.parts.FinalHeader {
		if err := zfile.CheckTrailer(ctx, tarblob.Payload(c.blob, c.parts.Payload)); err != nil {
			c.problem(Problem{Kind: Trailer, Warning: true, Text: err.Error()})
		}
	}
}

// reach warns of segments behind the end of the disk: nobody can read them.
func (c *checker) reach() {
	end := c.opened.Identity().VirtualSize / lsmt.SectorSize
	if end == 0 {
		return
	}
	for s := range c.opened.Segments() {
		if s.Offset+s.Length > end {
			c.problem(Problem{Kind: Structure, Warning: true, Text: fmt.Sprintf(
				"segment of %d sectors at sector %d reaches past the end of the disk at %d", s.Length, s.Offset, end)})
			return
		}
	}
}

// span is a piece of the blob with the ZFile blocks [first, end) it holds.
type span struct {
	off, length int64
	first, end  int64
}

// pieces cuts the blob into pieces of whole blocks, in order and without gaps.
func (c *checker) pieces() iter.Seq[span] {
	return func(yield func(span) bool) {
		off := int64(0)
		if z := c.parts.ZFile; z != nil && z.Blocks() > 0 {
			base := c.parts.Payload.Offset
			start, _ := z.BlockExtent(0)
			off = base + start
			if !plain(0, off, yield) {
				return
			}
			for first := int64(0); first < z.Blocks(); {
				s := span{off: off, first: first, end: first}
				for s.end < z.Blocks() && s.length < pieceSize {
					_, n := z.BlockExtent(s.end)
					s.length, s.end = s.length+n, s.end+1
				}
				if !yield(s) {
					return
				}
				off, first = off+s.length, s.end
			}
		}
		plain(off, c.blob.Size(), yield)
	}
}

// plain yields pieces of [off, end) that hold no blocks.
func plain(off, end int64, yield func(span) bool) bool {
	for off < end {
		s := span{off: off, length: min(pieceSize, end-off)}
		if !yield(s) {
			return false
		}
		off += s.length
	}
	return true
}

// piece is a piece that was read and looked at.
type piece struct {
	span
	data     []byte
	err      error // of reading it
	problems []Problem
}

// piece reads s and checks its blocks.
func (c *checker) piece(ctx context.Context, s span) (piece, error) {
	p := piece{span: s, data: make([]byte, s.length)}
	if n, err := c.blob.ReadAt(ctx, p.data, s.off); n < len(p.data) {
		p.err = err
		return p, ctx.Err()
	}
	if s.first == s.end {
		return p, nil
	}
	z := c.parts.ZFile
	room, ok := c.rooms.Get().(*[]byte)
	if !ok {
		b := make([]byte, z.BlockSize())
		room = &b
	}
	defer c.rooms.Put(room)
	at := int64(0)
	for i := s.first; i < s.end; i++ {
		if err := ctx.Err(); err != nil { // tiny blocks can decode to a lot
			return p, err
		}
		_, n := z.BlockExtent(i)
		if err := z.CheckBlock(i, p.data[at:at+n], *room); err != nil && len(p.problems) <= maxProblems {
			p.problems = append(p.problems, Problem{
				Kind: Block, Text: err.Error(), Place: &Place{Block: &i, Offset: s.off + at, Length: n},
			})
		}
		at += n
	}
	return p, nil
}

// done takes the pieces in order.
func (c *checker) done(p piece) error {
	c.cfg.Progress(p.length)
	for _, problem := range p.problems {
		c.problem(problem)
	}
	if p.err == nil {
		c.leaves.write(p.data, c.problem)
	} else {
		c.leaves.skip(p.length)
	}
	if p.err == nil {
		c.readErrors = 0
		c.hash.Write(p.data)
		return nil
	}
	c.failed = true
	c.problem(Problem{Kind: Read, Text: p.err.Error(), Place: &Place{Offset: p.off, Length: p.length}})
	if c.readErrors++; c.readErrors == maxReadErrors {
		return errGone
	}
	return nil
}
