package lsmt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
)

// Seal makes the data file a layer of its own, in place: everything is flushed,
// then index and trailer are put behind the data. Reads go on to work, all
// changes fail with ErrSealed. The index file is not needed any more.
//
// Until Seal returned without an error the layer is a writable one, whatever
// becomes of the process; ErrTooManyRecords says that it can be nothing else.
func (u *Upper) Seal(ctx context.Context) error {
	leave, err := u.enter(ctx, everyone)
	if err != nil {
		return fmt.Errorf("sealing layer: %w", err)
	}
	defer leave()
	err = u.flush.exclusive(ctx, u.body.flush, func() error {
		if err := u.seal(u.index.entries()); err != nil {
			return err
		}
		u.sealed = true
		return u.body.finish()
	})
	if err != nil {
		return fmt.Errorf("sealing layer: %w", err)
	}
	return nil
}

// seal writes index and trailer. Nothing changes meanwhile and all is flushed.
// If it fails, the data file is as before.
func (u *Upper) seal(entries []entry) error {
	if len(entries) > maxRecords {
		return fmt.Errorf("%w: %d, the limit is %d", ErrTooManyRecords, len(entries), maxRecords)
	}
	end := u.body.end()
	err := writeSeal(u.file, end, u.body.flags(), u.body.identity(), entries)
	if err != nil {
		return errors.Join(err, u.file.truncate(end))
	}
	return nil
}

// writeSeal writes index and trailer to offset end. The trailer goes last, when
// what it speaks of is durable.
func writeSeal(f hostFile, end int64, flags uint32, id Identity, entries []entry) error {
	length := (int64(len(entries))*recordSize + SectorSize - 1) / SectorSize * SectorSize
	// Also without an index the file must not be longer than the trailer says.
	if err := f.truncate(end + length); err != nil {
		return fmt.Errorf("writing index: %w", err)
	}
	if err := writeRecords(f, end, slices.Values(entries)); err != nil {
		return err
	}
	if err := f.sync(); err != nil {
		return fmt.Errorf("writing index: %w", err)
	}
	h := header{Identity: id, flags: flags, indexOffset: uint64(end), records: uint64(len(entries))}
	if _, err := f.WriteAt(h.encode(), end+length); err != nil {
		return fmt.Errorf("writing trailer: %w", err)
	}
	if err := f.sync(); err != nil {
		return fmt.Errorf("writing trailer: %w", err)
	}
	return nil
}

// writeRecords writes records from offset off on.
func writeRecords(f hostFile, off int64, entries iter.Seq[entry]) error {
	raw := make([]byte, 0, recordsPiece*recordSize)
	write := func() error {
		if _, err := f.WriteAt(raw, off); err != nil {
			return fmt.Errorf("writing index: %w", err)
		}
		off, raw = off+int64(len(raw)), raw[:0]
		return nil
	}
	for e := range entries {
		if raw = appendRecord(raw, e); len(raw) == cap(raw) {
			if err := write(); err != nil {
				return err
			}
		}
	}
	return write()
}

// SealUpper seals a layer that nobody has open. Lower is the virtual size in
// bytes of what it lies on, 0 if that is nothing: a layer that was never opened
// may not know its own. A layer that is sealed already stays as it is, also
// when its index file is gone.
func SealUpper(ctx context.Context, files UpperFiles, lower int64) error {
	if err := sealUpper(ctx, files, lower); err != nil {
		return fmt.Errorf("sealing writable layer %s: %w", files.Data, err)
	}
	return nil
}

func sealUpper(ctx context.Context, files UpperFiles, lower int64) error {
	sealed, err := isSealed(ctx, files)
	if err != nil || sealed {
		return err
	}
	u, err := openUpper(ctx, files, nil, lower)
	if err != nil {
		return err
	}
	return errors.Join(u.Seal(ctx), u.Close())
}

// isSealed reports whether the data file is a sealed layer that has what the
// index log says.
func isSealed(ctx context.Context, files UpperFiles) (bool, error) {
	data, err := OpenFile(files.Data)
	if err != nil {
		return false, err
	}
	defer data.Close()
	sealed, err := Open(ctx, data)
	if err != nil {
		return false, nil //nolint:nilerr // whatever it is, it is not sealed
	}
	index, err := OpenFile(files.Index)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer index.Close()
	open, err := OpenWritable(ctx, data, index)
	if err != nil {
		return false, err
	}
	return slices.Equal(sealed.entries, open.entries), nil
}
