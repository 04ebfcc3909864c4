package readahead

import "time"

const (
	minBlock = 8 << 10 // bytes
	nearby   = 64 << 10
)

// expand fetches the aligned block around what is missing, of the size that pays
// on the line to the registry: one that takes twice as long to arrive as a
// request takes to be answered. In a start, every other byte of such a block is
// then needed. Ahead of streams, which may leave something out, it fetches as
// much as they have read.
type expand struct {
	streams
	line             line
	block, max, size int64 // bytes
}

func newExpand(c Config, size int64) *expand {
	return &expand{streams: streams{gap: nearby}, block: c.Block, max: c.Max, size: size}
}

// Next implements Policy.
func (p *expand) Next(off, n int64) Ahead {
	s := p.enter(off, n)
	a := s.readAhead(n, min(s.run, p.max), p.size)
	block := p.blockSize()
	a.Read.Off = off / block * block
	a.Read.End = max(a.Read.End, min((off+n+block-1)/block*block, p.size))
	a.Polite = true
	return a
}

// Observe implements Policy.
func (p *expand) Observe(n int64, took time.Duration) { p.line.observe(n, took) }

// blockSize returns the power of two that pays.
func (p *expand) blockSize() int64 {
	pays := 2 * p.line.worth(p.block)
	size := int64(minBlock)
	for 2*size <= min(pays, p.block) {
		size *= 2
	}
	return size
}
