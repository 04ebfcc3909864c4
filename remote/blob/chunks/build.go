package chunks

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// batchSize is how many bytes are read, and their leaves hashed, at a time.
const batchSize = 1 << 20

// Build reads all of r, whose leaves have the given lengths (bytes, 1 to
// MaxLeaf), and returns its chunk table and the root digest of that. fanOut is
// the number of leaves a page has, DefaultFanOut if 0. lengths is ranged over
// twice, so that the table is allocated once: 34 bytes a leaf.
//
// Each byte is read once, in order and on the calling goroutine, so a caller
// that needs a hash of the whole takes an io.TeeReader: leaves are hashed on
// other processors meanwhile.
func Build(ctx context.Context, r io.Reader, lengths iter.Seq[int], fanOut int) ([]byte, digest.Digest, error) {
	h := header{fanOut: fanOut}
	if fanOut == 0 {
		h.fanOut = DefaultFanOut
	}
	for n := range lengths {
		if n < 1 || n > MaxLeaf {
			return nil, "", fmt.Errorf("building chunk table: leaf %d of %d bytes at offset %d", h.leaves, n, h.covered)
		}
		h.leaves, h.covered = h.leaves+1, h.covered+int64(n)
	}
	switch {
	case h.fanOut < 1 || h.fanOut > MaxFanOut:
		return nil, "", fmt.Errorf("building chunk table: %d leaves a page are not 1 to %d", h.fanOut, MaxFanOut)
	case h.pages() > MaxIndex/entrySize:
		return nil, "", fmt.Errorf("building chunk table: %d leaves need more than the %d pages there can be; use larger leaves", h.leaves, MaxIndex/entrySize)
	}
	table := make([]byte, h.size())
	if err := hashLeaves(ctx, r, lengths, table[h.pagesAt():]); err != nil {
		return nil, "", fmt.Errorf("building chunk table: %w", err)
	}
	copy(table, h.encode())
	h.index(table)
	root := sha256.Sum256(table[:h.pagesAt()])
	return table, digest.NewDigestFromBytes(digest.SHA256, root[:]), nil
}

// index fills the index of a table whose pages are complete.
func (h header) index(table []byte) {
	for i := range h.pages() {
		off, leaves := h.page(i)
		page := table[off : off+int64(leaves)*recordSize]
		covered := uint32(0)
		for at := 0; at < len(page); at += recordSize {
			covered += uint32(recordLength(page[at:]))
		}
		sum := sha256.Sum256(page)
		entry := table[indexAt+i*entrySize:]
		binary.LittleEndian.PutUint32(entry, covered)
		copy(entry[4:], sum[:])
	}
}

// recordLength returns how many bytes the leaf of a record has.
func recordLength(record []byte) int { return int(binary.LittleEndian.Uint16(record)) + 1 }

// batch is some bytes of whole leaves and where their records go.
type batch struct {
	data    []byte
	lengths []int
	records []byte
}

// hash fills the records.
func (b *batch) hash() {
	data, records := b.data, b.records
	for _, n := range b.lengths {
		binary.LittleEndian.PutUint16(records, uint16(n-1))
		sum := sha256.Sum256(data[:n])
		copy(records[2:], sum[:])
		data, records = data[n:], records[recordSize:]
	}
}

// hashLeaves reads r to its end and fills records, one for each leaf.
func hashLeaves(ctx context.Context, r io.Reader, lengths iter.Seq[int], records []byte) error {
	workers := runtime.GOMAXPROCS(0)
	free := make(chan *batch, workers+1)
	for range cap(free) {
		free <- &batch{data: make([]byte, 0, batchSize+MaxLeaf)}
	}
	var g errgroup.Group // of workers that do not fail
	defer g.Wait()       //nolint:errcheck // none fails
	var b *batch
	send := func() error {
		if b == nil {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := io.ReadFull(r, b.data); err != nil {
			return fmt.Errorf("reading the bytes to cover: %w", noEOF(err))
		}
		full := b
		full.records, records = records[:len(b.lengths)*recordSize], records[len(b.lengths)*recordSize:]
		g.Go(func() error {
			full.hash()
			free <- full
			return nil
		})
		b = nil
		return nil
	}
	for n := range lengths {
		if b == nil {
			b = <-free
			b.data, b.lengths = b.data[:0], b.lengths[:0]
		}
		b.data, b.lengths = b.data[:len(b.data)+n], append(b.lengths, n)
		if len(b.data) >= batchSize {
			if err := send(); err != nil {
				return err
			}
		}
	}
	if err := send(); err != nil {
		return err
	}
	switch n, err := io.ReadFull(r, make([]byte, 1)); {
	case n > 0:
		return errors.New("the bytes to cover go on after the last leaf")
	case err != io.EOF: //nolint:errorlint // ReadFull returns it bare
		return fmt.Errorf("reading the end of the bytes to cover: %w", err)
	}
	return nil
}

func noEOF(err error) error {
	if err == io.EOF { //nolint:errorlint // ReadFull returns it bare
		return io.ErrUnexpectedEOF
	}
	return err
}
