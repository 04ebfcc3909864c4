package lsmt

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/semaphore"

	"github.com/reprise-containers/reprise/remote/blob"
)

// OpenUpper opens the writable layer files on top of lower, which is the merged
// image below it, or nil if there is none. Past the end of lower there are
// zeros. What lower is asked for may come from a registry; of it, only Size is
// asked here.
//
// The layer may be one that a crash left: see Upper. It may also have been
// sealed: it is writable again then, and the trailer goes. The error wraps
// ErrInUse if the layer is open elsewhere, on this host.
func OpenUpper(ctx context.Context, files UpperFiles, lower blob.ReaderAt) (*Upper, error) {
	u, err := openUpper(ctx, files, lower, 0)
	if err != nil {
		return nil, fmt.Errorf("opening writable layer %s: %w", files.Data, err)
	}
	return u, nil
}

// openUpper is OpenUpper; size is that of what is below for those who do not
// have lower at hand.
func openUpper(ctx context.Context, files UpperFiles, lower blob.ReaderAt, size int64) (*Upper, error) {
	u := &Upper{gate: semaphore.NewWeighted(everyone), tier: tier{lower: lower}, era: &era{}, limit: MaxSegments}
	if lower != nil {
		size = lower.Size()
	}
	b, err := u.openBody(ctx, files)
	if err != nil {
		return nil, err
	}
	u.body = b
	if lower != nil {
		err = b.stackable()
	}
	if err == nil {
		err = u.settleSize(ctx, size)
	}
	if err == nil {
		err = b.start()
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return u, nil
}

// settleSize finds out how large the disk is, and writes that down if the layer
// did not know.
func (u *Upper) settleSize(ctx context.Context, below int64) error {
	size := u.body.identity().VirtualSize
	if size == 0 {
		if below == 0 {
			return errors.New("neither the layer nor what is below has a virtual size")
		}
		size = below
	}
	if size%SectorSize != 0 {
		return fmt.Errorf("virtual size %d is not a multiple of %d", size, SectorSize)
	}
	if u.body.identity().VirtualSize == 0 {
		if err := u.body.grow(ctx, size); err != nil {
			return err
		}
	}
	u.disk.Store(size)
	return nil
}

// openBody opens the files and reads what they hold, and changes nothing yet.
func (u *Upper) openBody(ctx context.Context, files UpperFiles) (body, error) {
	data, err := openHostFile(files.Data)
	if err != nil {
		return nil, err
	}
	b, err := u.openData(ctx, files, data)
	if err != nil {
		return nil, errors.Join(err, data.Close())
	}
	return b, nil
}

func (u *Upper) openData(ctx context.Context, files UpperFiles, data hostFile) (body, error) {
	if err := data.lock(); err != nil {
		return nil, err
	}
	size, err := data.size()
	if err != nil {
		return nil, err
	}
	if size < HeaderSize {
		return nil, fmt.Errorf("%w: %d bytes are less than a header", ErrFormat, size)
	}
	h, err := readHeader(ctx, &reader{hostFile: data, name: files.Data, n: size}, 0, "header")
	if err != nil {
		return nil, err
	}
	if !h.is(flagHeader|flagData, flagHeader|flagData|flagSealed) {
		return nil, fmt.Errorf("header: flags %#x are not those of a data file that is not sealed", h.flags)
	}
	if err := h.checkSize(); err != nil {
		return nil, err
	}
	index, err := openHostFile(files.Index)
	if err != nil {
		return nil, err
	}
	var b body
	if h.has(flagSparse) {
		b, err = u.openSparse(data, index, files, h.Identity)
	} else {
		b, err = u.openAppended(ctx, data, index, files, h.Identity)
	}
	if err != nil {
		return nil, errors.Join(err, index.Close())
	}
	return b, nil
}
