package lsmt

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/remote/blob"
)

// partsAtOnce is how many parts of a read are looked up at once.
const partsAtOnce = 32

// part is a stretch of a read.
type part struct {
	kind partKind
	off  int64 // in the file that kind says, bytes
	p    []byte
}

type partKind int

const (
	partZero partKind = iota
	partData          // in the data file
	partBelow
)

// view is what a read sees: the parts it is made of at one moment.
type view struct {
	file  hostFile
	lower blob.ReaderAt
	era   *era // nil if what is read never changes
	n     int
	parts [partsAtOnce]part
}

// ReadAt implements device.Device; unlike kernels it may ask for any offset
// and length.
func (u *Upper) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	done, err := u.use()
	if err != nil {
		return 0, fmt.Errorf("reading layer: %w", err)
	}
	defer done()
	if off < 0 {
		return 0, fmt.Errorf("reading layer at negative offset %d", off)
	}
	var end error
	if size := u.Size(); int64(len(p)) > size-off {
		p, end = p[:max(size-off, 0)], io.EOF
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := u.read(ctx, p, off); err != nil {
		return 0, err
	}
	return len(p), end
}

// read fills p from off on.
func (u *Upper) read(ctx context.Context, p []byte, off int64) error {
	var v view
	for len(p) > 0 {
		n := u.look(&v, p, off)
		if err := v.fill(ctx); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// look has v describe the first bytes of p, which is at off on the disk, and
// returns how many. v.era is entered, and v.fill leaves it.
func (u *Upper) look(v *view, p []byte, off int64) int {
	u.mu.RLock()
	defer u.mu.RUnlock()
	v.era = u.era
	v.era.reads.Add(1)
	return u.tier.look(v, p, off)
}

// fill reads the parts, those of this layer first: what lies below may take
// long, and dead data waits for the end of reads.
func (v *view) fill(ctx context.Context) error {
	err := v.fillOwn()
	if v.era != nil {
		v.era.reads.Add(-1)
	}
	if err != nil {
		return err
	}
	return v.fillBelow(ctx)
}

func (v *view) fillOwn() error {
	for _, part := range v.parts[:v.n] {
		switch part.kind {
		case partZero:
			clear(part.p)
		case partData:
			n, err := v.file.ReadAt(part.p, part.off)
			if errors.Is(err, io.EOF) && n < len(part.p) {
				err = io.ErrUnexpectedEOF
			}
			if err != nil && n < len(part.p) {
				return fmt.Errorf("reading data file: %w", err)
			}
		case partBelow:
		}
	}
	return nil
}

// fillBelow reads what lies below, one part after the other as long as all is
// at hand, and in parallel from the first that is not.
func (v *view) fillBelow(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelReads)
	for i, part := range v.parts[:v.n] {
		if part.kind != partBelow {
			continue
		}
		if i == v.n-1 || v.lower == nil || blob.Present(v.lower, part.off, int64(len(part.p))) {
			if err := readBelow(gctx, v.lower, part.p, part.off); err != nil {
				g.Go(func() error { return err })
				break
			}
			continue
		}
		lower := v.lower
		g.Go(func() error { return readBelow(gctx, lower, part.p, part.off) })
	}
	return g.Wait()
}

// readBelow fills p from offset off of lower, with zeros past its end.
func readBelow(ctx context.Context, lower blob.ReaderAt, p []byte, off int64) error {
	if lower == nil {
		clear(p)
		return nil
	}
	if err := readPadded(ctx, lower, p, off); err != nil {
		return fmt.Errorf("reading below the writable layer: %w", err)
	}
	return nil
}
