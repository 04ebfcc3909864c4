package lsmt

import (
	"fmt"
	"io"
)

// Committer writes a committed layer front to back, for those who have what
// changed on a disk and not a disk: data in ascending order, then Finish.
type Committer struct {
	c   *committer
	end int64 // behind what was written, bytes
}

// NewCommitter starts a layer on w.
func NewCommitter(w io.Writer, id Identity) (*Committer, error) {
	c, err := newCommitter(w, id)
	if err != nil {
		return nil, fmt.Errorf("committing layer: %w", err)
	}
	return &Committer{c: c}, nil
}

// Data writes p as what the disk has from offset off (bytes) on. Both are whole
// sectors, and off is not before the end of what was written.
func (c *Committer) Data(off int64, p []byte) error {
	if off < c.end || off%SectorSize != 0 || len(p)%SectorSize != 0 || off+int64(len(p)) > c.c.id.VirtualSize {
		return fmt.Errorf("committing layer: %d bytes at %d of %d, after %d", len(p), off, c.c.id.VirtualSize, c.end)
	}
	c.end = off + int64(len(p))
	if err := c.c.data(uint64(off/SectorSize), p); err != nil {
		return fmt.Errorf("committing layer: %w", err)
	}
	return nil
}

// Finish writes index and trailer.
func (c *Committer) Finish() error {
	if err := c.c.finish(); err != nil {
		return fmt.Errorf("committing layer: %w", err)
	}
	return nil
}
