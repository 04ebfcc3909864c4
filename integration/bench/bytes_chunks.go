package main

import (
	"context"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/reference"
)

// Bytes of a chunk table, see docs/chunks.md.
const (
	leafRecord = 34
	pageEntry  = 36
)

// chunkTables compares ways to cut leaves and pages of a chunk table by what a
// start needs of data, rounded up to leaves, jump tables, and chunk tables.
func (b bench) chunkTables(ctx context.Context) error {
	fans := []int64{16, 32, 64, 128}
	return b.recorded(ctx, func(_ *node.Node, c *converted, r reference.Result) error {
		stored, err := r.Stored(c.Image)
		if err != nil {
			return err
		}
		var exact int64
		for _, n := range stored {
			exact += n
		}
		layers := lengths(c)
		var jump int64
		for _, l := range layers {
			jump += jumpEntry * int64(len(l))
		}
		lean, err := leanLengths(layers)
		if err != nil {
			return err
		}
		fmt.Printf("\nChunk tables, start of %s: %d blocks, %.3f MB; all relative to that; jump tables %.3f, their lengths compressed %.3f\n",
			c.start.Name, len(stored), float64(exact)/1e6, float64(jump)/float64(exact), float64(lean)/float64(exact))
		fmt.Printf("%-12s %6s %6s", "leaf of", "data", "again")
		for _, f := range fans {
			fmt.Printf("  %4d: hashes    sum requests", f)
		}
		fmt.Println()
		for _, least := range []int64{1, 512, 1024, 1536, 2048, 4096, 8192, 16384} {
			for i, f := range fans {
				t := chunkCost(layers, stored, least, f)
				rel := func(n int64) float64 { return float64(n) / float64(exact) }
				if i == 0 {
					fmt.Printf("%6d bytes %6.3f %6.3f", least, rel(t.data), rel(t.again))
				}
				fmt.Printf("        %6.3f %6.3f %8d", rel(t.hashes), rel(t.data+t.hashes+jump), t.requests)
			}
			fmt.Println()
		}
		return nil
	})
}

// lengths returns the stored lengths of the blocks of each layer.
func lengths(c *converted) [][]int64 {
	var out [][]int64
	for _, s := range c.Streams() {
		z := s.(*zfile.Reader)
		l := make([]int64, z.Blocks())
		for i := range l {
			_, l[i] = z.BlockExtent(int64(i))
		}
		out = append(out, l)
	}
	return out
}

// tableCost is what a start takes, in bytes, and in requests for leaves and
// pages if each is one.
type tableCost struct {
	data, hashes int64
	// again is data if each block fetches its leaf, because what else is in
	// it is not kept.
	again    int64
	requests int
}

// chunkCost cuts the blocks of each layer into leaves, runs that end as soon as
// they have least bytes, with fan leaves to a page.
func chunkCost(layers [][]int64, stored map[reference.Block]int64, least, fan int64) tableCost {
	var t tableCost
	for layer, blocks := range layers {
		var leaf, size int64
		var touched int64 // blocks of the leaf
		page := false
		closeLeaf := func() {
			if touched > 0 {
				t.data += size
				t.again += touched * size
				t.requests++
				page = true
			}
			leaf++
			size, touched = 0, 0
		}
		closePage := func() {
			if page {
				t.hashes += ((leaf-1)%fan + 1) * leafRecord
				t.requests++
			}
			t.hashes += pageEntry
			page = false
		}
		for i, n := range blocks {
			if _, ok := stored[reference.Block{Layer: layer, Index: int64(i)}]; ok {
				touched++
			}
			if size += n; size < least && i < len(blocks)-1 {
				continue
			}
			closeLeaf()
			if leaf%fan == 0 || i == len(blocks)-1 {
				closePage()
			}
		}
	}
	return t
}

// leanLengths returns the bytes that the lengths take, compressed: low bytes
// first, then high ones, with zstd.
func leanLengths(layers [][]int64) (int64, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		return 0, err
	}
	defer e.Close()
	var sum int64
	for _, blocks := range layers {
		bytes := make([]byte, 2*len(blocks))
		for i, n := range blocks {
			bytes[i], bytes[len(blocks)+i] = byte(n), byte(n>>8)
		}
		sum += int64(len(e.EncodeAll(bytes, nil)))
	}
	return sum, nil
}
