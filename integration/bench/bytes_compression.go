package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/reference"
	"github.com/reprise-containers/reprise/remote/blob"
)

// zfileBlock is the usual size of a block in bytes.
const zfileBlock = reference.BlockSize

// jumpEntry is what a block takes in a jump table, in bytes.
const jumpEntry = 4

// compressions compares ways to compress by the bytes that a start needs, by
// size, and by how fast one core decodes.
func (b bench) compressions(ctx context.Context) error {
	fmt.Printf("\nStarts from converted images: data and jump tables, relative to zstd in blocks of 4 KiB\n")
	fmt.Printf("%-6s %-10s %8s %9s %9s %7s %9s %7s %13s\n", "", "", "blocks", "MB", "jump MB", "ratio", "layers MB", "ratio", "decoding MB/s")
	return b.recorded(ctx, func(n *node.Node, c *converted, r reference.Result) error {
		var need, size float64
		for _, algorithm := range []zfile.Algorithm{zfile.ZSTD, zfile.LZ4} {
			for k := 1; k <= 8; k *= 2 {
				z := zfile.Options{Algorithm: algorithm, BlockSize: k * zfileBlock}
				other, err := b.convert(ctx, n, c.start, z)
				if err != nil {
					return err
				}
				var row compressionRow
				if err := errors.Join(row.measure(ctx, other, r), other.Close()); err != nil {
					return err
				}
				if need == 0 {
					need, size = row.data+row.jump, row.size
				}
				fmt.Printf("%-6s %-4v %2d KiB %9d %9.3f %9.3f %7.3f %9.1f %7.3f %13.0f\n", c.start.Name, algorithm, z.BlockSize>>10,
					row.blocks, row.data/1e6, row.jump/1e6, (row.data+row.jump)/need, row.size/1e6, row.size/size, row.decoding)
			}
		}
		return nil
	})
}

// compressionRow is what a start takes of an image; sizes in bytes.
type compressionRow struct {
	blocks           int
	data, jump, size float64
	decoding         float64 // MB/s
}

// measure adds up what the start r takes of c.
func (row *compressionRow) measure(ctx context.Context, c *converted, r reference.Result) error {
	stored, err := r.Stored(c.Image)
	if err != nil {
		return err
	}
	row.blocks = len(stored)
	for _, n := range stored {
		row.data += float64(n)
	}
	for _, s := range c.Streams() {
		row.jump += float64(jumpEntry * s.(*zfile.Reader).Blocks())
	}
	size, err := c.Size()
	if err != nil {
		return err
	}
	row.size = float64(size)
	row.decoding, err = decoding(ctx, c.Streams()[0])
	return err
}

// decoding reads the start of a stream and returns MB/s.
func decoding(ctx context.Context, stream blob.ReaderAt) (float64, error) {
	const most = 32 << 20
	buf := make([]byte, 1<<20)
	best := 0.0
	for range rounds {
		var n int64
		start := time.Now()
		for n < min(most, stream.Size()-int64(len(buf))) {
			if err := blob.ReadFull(ctx, stream, buf, n); err != nil {
				return 0, err
			}
			n += int64(len(buf))
		}
		best = max(best, float64(n)/1e6/time.Since(start).Seconds())
	}
	return best, nil
}
