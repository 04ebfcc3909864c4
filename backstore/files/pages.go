package files

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/reprise-containers/reprise/remote/blob"
)

const (
	pageSize = 4096    // bytes
	keep     = 4096    // pages, 16 MiB
	maxUses  = 8 << 20 // of pages: some seconds
)

// ErrLimit is wrapped by errors about file systems on which finding files takes
// more than it does on any that somebody would make.
var ErrLimit = errors.New("file system is larger than can be searched")

// pages reads metadata from a device in whole pages, as a kernel does, and keeps
// those it read: whoever records the reads of the device sees each once. It must
// not be used in parallel.
type pages struct {
	dev   blob.ReaderAt
	pages map[int64][]byte
	order []int64 // in which they were read; a ring once it is full
	next  int     // of order to be given up
	uses  int
}

func newPages(dev blob.ReaderAt) *pages { return &pages{dev: dev, pages: make(map[int64][]byte)} }

// Size implements blob.ReaderAt.
func (c *pages) Size() int64 { return c.dev.Size() }

// ReadAt implements blob.ReaderAt.
func (c *pages) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading metadata at negative offset %d", off)
	}
	n := 0
	for n < len(p) && off < c.Size() {
		page, err := c.page(ctx, off/pageSize, (off+int64(len(p)-n)-1)/pageSize)
		if err != nil {
			return n, err
		}
		k := copy(p[n:], page[min(off%pageSize, int64(len(page))):])
		n, off = n+k, off+int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// page returns a page. Those behind it up to last, which are wanted next, are
// read together with it.
func (c *pages) page(ctx context.Context, first, last int64) ([]byte, error) {
	if c.uses++; c.uses > maxUses {
		return nil, fmt.Errorf("reading metadata: %w", ErrLimit)
	}
	if page, ok := c.pages[first]; ok {
		return page, nil
	}
	end := first + 1
	for end <= last && end-first < keep/4 && c.pages[end] == nil {
		end++
	}
	b := make([]byte, min(end*pageSize, c.Size())-first*pageSize)
	if err := blob.ReadFull(ctx, c.dev, b, first*pageSize); err != nil {
		return nil, err
	}
	for n := first; n < end; n++ {
		c.put(n, b[(n-first)*pageSize:min(int64(len(b)), (n-first+1)*pageSize)])
	}
	return c.pages[first], nil
}

// put keeps a page in place of the oldest.
func (c *pages) put(n int64, page []byte) {
	if len(c.order) < keep {
		c.order = append(c.order, n)
	} else {
		delete(c.pages, c.order[c.next])
		c.order[c.next] = n
		c.next = (c.next + 1) % keep
	}
	c.pages[n] = page
}
