package check

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"iter"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// statedChunks returns where the annotations say that the chunk table is, nothing
// if that can not be, and reports what readers refuse.
func (c *checker) statedChunks() chunks.Ref {
	said, err := labels.Chunks(c.blob.Descriptor().Annotations)
	if err == nil && !said.IsZero() {
		err = said.ValidateIn(c.blob.Size())
	}
	if err != nil {
		c.problem(Problem{Kind: Descriptor, Text: err.Error()})
	}
	if said.Validate(c.blob.Size()) != nil {
		return chunks.Ref{}
	}
	return said
}

// chunkTable finds the chunk table of the layer, compares it with what the
// annotations say, and prepares the check of the bytes it covers.
func (c *checker) chunkTable(ctx context.Context) {
	report := func(format string, args ...any) {
		c.problem(Problem{Kind: Chunks, Text: fmt.Sprintf(format, args...)})
	}
	said := c.statedChunks()
	at, found, err := backstore.FindChunks(ctx, c.blob, c.parts)
	if err != nil {
		report("%v", err)
		return
	}
	switch {
	case !found && !said.IsZero():
		report("annotations name a chunk table at offset %d, but the archive has none", said.Offset)
		return
	case !found:
		return
	case !said.IsZero() && (said.Offset != at.Offset || said.Size != at.Size):
		report("annotations name a chunk table of %d bytes at offset %d, the archive has one of %d at %d",
			said.Size, said.Offset, at.Size, at.Offset)
	}
	table, err := chunks.Open(ctx, blob.Section(c.blob, at.Offset, at.Size), "")
	if err != nil {
		report("%v", err)
		return
	}
	if !said.IsZero() && said.Root != table.Root() {
		report("chunk table has the root digest %s, the annotation says %s", table.Root(), said.Root)
	}
	if before := c.parts.Payload.Next(); table.Covered() != before {
		report("chunk table covers %d bytes, not the %d before it", table.Covered(), before)
	}
	c.res.Chunks = table.Len()
	c.leaves = newLeaves(ctx, table)
}

// leaves compares the bytes of a blob, in order, with the leaves of its chunk
// table. A nil one compares nothing.
type leaves struct {
	next func() (chunks.Leaf, error, bool)
	stop func()

	leaf    chunks.Leaf
	left    int64 // bytes of leaf to come
	hash    hash.Hash
	skipped bool // some of leaf could not be read
	end     bool // no leaf follows
}

func newLeaves(ctx context.Context, table *chunks.Table) *leaves {
	l := &leaves{hash: sha256.New()}
	l.next, l.stop = iter.Pull2(table.Leaves(ctx))
	return l
}

// close ends the reading of the table.
func (l *leaves) close() {
	if l != nil {
		l.stop()
	}
}

// write takes the next bytes of the blob.
func (l *leaves) write(p []byte, report func(Problem)) {
	for l != nil && len(p) > 0 && l.begin(report) {
		n := min(int64(len(p)), l.left)
		l.hash.Write(p[:n])
		l.left -= n
		p = p[n:]
		if l.left == 0 && !l.skipped && [sha256.Size]byte(l.hash.Sum(nil)) != l.leaf.SHA256 {
			report(Problem{
				Kind: Chunks, Place: &Place{Offset: l.leaf.Offset, Length: int64(l.leaf.Length)},
				Text: fmt.Sprintf("chunk %d does not have the SHA-256 that the chunk table says", l.leaf.Number),
			})
		}
	}
}

// skip passes over bytes of the blob that could not be read.
func (l *leaves) skip(n int64) {
	for l != nil && n > 0 && l.begin(func(Problem) {}) {
		k := min(n, l.left)
		l.skipped = true
		l.left -= k
		n -= k
	}
}

// begin goes on to the next leaf when one is done, and returns false after the
// last, or when the table can't be read.
func (l *leaves) begin(report func(Problem)) bool {
	for l.left == 0 && !l.end {
		leaf, err, ok := l.next()
		if err != nil {
			report(Problem{Kind: Chunks, Text: err.Error()})
		}
		if err != nil || !ok {
			l.end = true
			return false
		}
		l.leaf, l.left, l.skipped = leaf, int64(leaf.Length), false
		l.hash.Reset()
	}
	return !l.end
}
