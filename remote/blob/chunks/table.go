package chunks

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"sort"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/remote/blob"
)

// index is the verified header and index of a table. It does not change.
type index struct {
	header
	root   digest.Digest
	raw    []byte  // of the index
	starts []int64 // where the bytes that a page covers start; one more for the end
}

const (
	// firstPiece suffices for the index of 3.6 GiB in blocks of 4 KiB.
	firstPiece = 1 << 20
	lastPiece  = 8 << 20
	// smallTable is the size in bytes of tables that are read as a whole.
	smallTable = 4096
)

// headSize returns how much is read first of a table of size bytes: header and
// index, if it has the default fan-out, and page 0, because whoever reads a blob
// needs its first bytes.
func headSize(size int64) int64 {
	g := guess(size)
	return min(max(g.pagesAt()+min(g.leaves, DefaultFanOut)*recordSize, smallTable), size, firstPiece)
}

// tail returns which part of a table of size bytes, if it has the default
// fan-out, is behind what is read first and has the pages of the jump table,
// which whoever opens a layer needs, too: 4 bytes for each block.
func tail(size int64) (first int64, off, n int64) {
	g := guess(size)
	last := g.pages() - 1
	first = max(last-1-min(g.leaves*4/PlainLeaf/DefaultFanOut, maxTail), 0)
	for ; first <= last; first++ {
		if off, n = g.extent(first, last); off >= headSize(size) {
			return first, off, n
		}
	}
	return first, size, 0
}

// maxTail bounds the pages that are read before they are needed.
const maxTail = 16

// readHead reads header and index of the table r, and what headSize says. What
// is allocated grows with what arrives.
func readHead(ctx context.Context, r blob.ReaderAt) (head []byte, err error) {
	head = make([]byte, headSize(r.Size()))
	if err := blob.ReadFull(ctx, r, head, 0); err != nil {
		return nil, err
	}
	h, err := decodeHeader(head, r.Size())
	if err != nil {
		return head, nil //nolint:nilerr // parseHead says so, too
	}
	for piece := int64(firstPiece); int64(len(head)) < h.pagesAt(); piece = min(2*piece, lastPiece) {
		at := len(head)
		n := min(piece, h.pagesAt()-int64(at))
		head = slices.Grow(head, int(n))[:at+int(n)]
		if err := blob.ReadFull(ctx, r, head[at:], int64(at)); err != nil {
			return nil, err
		}
	}
	return head, nil
}

// parseHead checks what readHead read of a table of size bytes. root may be
// empty: then it is whatever there is.
func parseHead(head []byte, size int64, root digest.Digest) (*index, error) {
	h, err := decodeHeader(head, size)
	if err != nil {
		return nil, err
	}
	if int64(len(head)) < h.pagesAt() {
		return nil, fmt.Errorf("chunk table ends within its index")
	}
	sum := sha256.Sum256(head[:h.pagesAt()])
	got := digest.NewDigestFromBytes(digest.SHA256, sum[:])
	if root != "" && got != root {
		return nil, fmt.Errorf("chunk table has the root digest %s, not %s", got, root)
	}
	ix := &index{header: h, root: got, raw: head[indexAt:h.pagesAt():h.pagesAt()], starts: make([]int64, h.pages()+1)}
	for i := range h.pages() {
		_, leaves := h.page(i)
		covered := binary.LittleEndian.Uint32(ix.raw[i*entrySize:])
		if int64(covered) < int64(leaves) || int64(covered) > int64(leaves)*MaxLeaf {
			return nil, blob.Permanent(fmt.Errorf("chunk table: page %d of %d leaves covers %d bytes", i, leaves, covered))
		}
		ix.starts[i+1] = ix.starts[i] + int64(covered)
	}
	if end := ix.starts[h.pages()]; end != h.covered {
		return nil, blob.Permanent(fmt.Errorf("chunk table: pages cover %d bytes, the header says %d", end, h.covered))
	}
	return ix, nil
}

// find returns the number of the page that covers byte off.
func (ix *index) find(off int64) int64 {
	return int64(sort.Search(len(ix.starts)-1, func(i int) bool { return ix.starts[i+1] > off }))
}

// page is a verified page.
type page struct {
	first int64  // number of its first leaf
	start int64  // where that starts in the blob
	raw   []byte // records
}

// parsePage checks the records of page i and returns it. raw is kept.
func (ix *index) parsePage(i int64, raw []byte) (*page, error) {
	sum := sha256.Sum256(raw)
	if string(sum[:]) != string(ix.raw[i*entrySize+4:(i+1)*entrySize]) {
		return nil, fmt.Errorf("page %d does not have the hash that the index says", i)
	}
	covered := int64(0)
	for at := 0; at < len(raw); at += recordSize {
		covered += int64(recordLength(raw[at:]))
	}
	if want := ix.starts[i+1] - ix.starts[i]; covered != want {
		return nil, blob.Permanent(fmt.Errorf("chunk table: leaves of page %d have %d bytes, the index says %d", i, covered, want))
	}
	return &page{first: i * int64(ix.fanOut), start: ix.starts[i], raw: raw}, nil
}

// leaf is a piece of a blob and what it hashes to.
type leaf struct {
	number int64
	off    int64 // in the blob
	length int
	sum    []byte
}

func (l leaf) end() int64 { return l.off + int64(l.length) }

// leaves yields the leaves of p in order.
func (p *page) leaves(yield func(leaf) bool) bool {
	l := leaf{number: p.first, off: p.start}
	for at := 0; at < len(p.raw); at += recordSize {
		l.length = recordLength(p.raw[at:])
		l.sum = p.raw[at+2 : at+recordSize : at+recordSize]
		if !yield(l) {
			return false
		}
		l.off += int64(l.length)
		l.number++
	}
	return true
}

// Leaf is a piece of a blob.
type Leaf struct {
	Number, Offset int64
	Length         int // bytes
	SHA256         [sha256.Size]byte
}

// Table is a chunk table whose header and index were read and checked. Methods
// may be called in parallel.
type Table struct {
	r  blob.ReaderAt
	ix *index
}

// Open reads header and index of the table that r is, all of it. With a root
// they have to hash to that; without, Root tells what they hash to.
func Open(ctx context.Context, r blob.ReaderAt, root digest.Digest) (*Table, error) {
	head, err := readHead(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("reading chunk table: %w", err)
	}
	ix, err := parseHead(head, r.Size(), root)
	if err != nil {
		return nil, err
	}
	return &Table{r, ix}, nil
}

// Root returns the root digest.
func (t *Table) Root() digest.Digest { return t.ix.root }

// Covered returns how many bytes of the blob, from its start, the table covers.
func (t *Table) Covered() int64 { return t.ix.covered }

// Len returns the number of leaves.
func (t *Table) Len() int64 { return t.ix.leaves }

// FanOut returns the number of leaves a page has.
func (t *Table) FanOut() int { return t.ix.fanOut }

// HeadSize returns the length in bytes of header and index, which a reader
// needs before all else.
func (t *Table) HeadSize() int64 { return t.ix.pagesAt() }

// Leaves reads and checks the pages and yields the leaves in order, to the
// first error.
func (t *Table) Leaves(ctx context.Context) iter.Seq2[Leaf, error] {
	return func(yield func(Leaf, error) bool) {
		pages := max(1, (256<<10)/int64(t.ix.fanOut*recordSize)) // read at a time
		for first := int64(0); first < t.ix.pages(); first += pages {
			raw, err := t.readPages(ctx, first, min(first+pages, t.ix.pages())-1)
			if err != nil {
				yield(Leaf{}, err)
				return
			}
			for i := first; len(raw) > 0; i++ {
				_, leaves := t.ix.page(i)
				p, err := t.ix.parsePage(i, raw[:leaves*recordSize])
				if err != nil {
					yield(Leaf{}, err)
					return
				}
				if !p.leaves(func(l leaf) bool {
					return yield(Leaf{l.number, l.off, l.length, [sha256.Size]byte(l.sum)}, nil)
				}) {
					return
				}
				raw = raw[leaves*recordSize:]
			}
		}
	}
}

// readPages reads pages first to last, unchecked.
func (t *Table) readPages(ctx context.Context, first, last int64) ([]byte, error) {
	off, n := t.ix.extent(first, last)
	raw := make([]byte, n)
	if err := blob.ReadFull(ctx, t.r, raw, off); err != nil {
		return nil, fmt.Errorf("reading chunk table: %w", err)
	}
	return raw, nil
}

// extent returns where in the table pages first to last lie.
func (h header) extent(first, last int64) (off, n int64) {
	off, _ = h.page(first)
	end, leaves := h.page(last)
	return off, end + int64(leaves)*recordSize - off
}
