package ext4

import (
	"context"
	"errors"
	"fmt"
)

// maxGroups bounds the groups whose descriptors are read: 512 TiB with blocks of
// 4 KiB.
const maxGroups = 4 << 20

// ReadToMount reads what a kernel reads of the device before any file: the
// descriptors of all groups, the superblock of the journal, the root directory's
// inode.
func (m *Image) ReadToMount(ctx context.Context) error {
	if m.sb.groups() > maxGroups {
		return fmt.Errorf("%w: %d groups", ErrFormat, m.sb.groups())
	}
	perBlock := uint32(m.sb.blockSize / m.sb.descSize)
	b := make([]byte, m.sb.blockSize)
	for group := uint32(0); group < uint32(m.sb.groups()); group += perBlock {
		if err := m.read(ctx, b, m.sb.descriptor(group)); err != nil {
			return fmt.Errorf("reading descriptors of group %d and later: %w", group, err)
		}
	}
	if _, err := m.Inode(ctx, Root); err != nil || m.sb.compat&compatJournal == 0 || m.sb.journal == 0 {
		return err
	}
	journal, err := m.Inode(ctx, uint64(m.sb.journal))
	if err != nil {
		return err
	}
	err = m.Extents(ctx, journal, func(e Extent) error {
		if err := m.read(ctx, b, e.Off); err != nil {
			return err
		}
		return errStop
	})
	if err != nil && !errors.Is(err, errStop) {
		return fmt.Errorf("reading superblock of the journal: %w", err)
	}
	return nil
}
