package lsmt

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Snapshot flushes and returns the layer as it is at that moment, without what
// lies below. It can be read, and committed, until release is called, which
// must be: Close waits for it. Of an append-only layer the snapshot never
// changes while writing goes on. Of a sparse layer it is the file that is
// written, so writes and discards wait for the release.
func (u *Upper) Snapshot(ctx context.Context) (*Layer, func(), error) {
	leave, err := u.enter(ctx, everyone)
	if err != nil {
		return nil, nil, fmt.Errorf("taking snapshot of layer: %w", err)
	}
	var l *Layer
	err = u.flush.exclusive(ctx, u.body.flush, func() error {
		l = u.body.layer(u.index.entries())
		return nil
	})
	if err != nil {
		leave()
		return nil, nil, fmt.Errorf("taking snapshot of layer: %w", err)
	}
	a, ok := u.body.(*appended)
	if !ok {
		return l, sync.OnceFunc(leave), nil
	}
	letDie := a.reclaim.hold()
	u.gate.Release(everyone)
	return l, sync.OnceFunc(func() {
		letDie()
		u.using.RUnlock()
	}), nil
}

// Restack seals the layer in place and goes on with the layer next on top of
// it, which must have been created and be empty. Reads go on meanwhile, changes
// wait. It returns the sealed layer, which can be read until Close. If it fails,
// the layer is what it was and next is not open.
func (u *Upper) Restack(ctx context.Context, next UpperFiles) (*Layer, error) {
	leave, err := u.enter(ctx, everyone)
	if err != nil {
		return nil, fmt.Errorf("stacking layer %s: %w", next.Data, err)
	}
	defer leave()
	top, err := openUpper(ctx, next, nil, u.Size())
	if err != nil {
		return nil, fmt.Errorf("stacking layer %s: %w", next.Data, err)
	}
	var l *Layer
	switch {
	case top.index.n > 0:
		err = errors.New("it is not empty")
	case top.Size() != u.Size():
		err = fmt.Errorf("its virtual size is %d, that of the layer below %d", top.Size(), u.Size())
	default:
		if err = top.body.stackable(); err != nil {
			break
		}
		err = u.flush.exclusive(ctx, u.body.flush, func() error {
			l, err = u.restack(top)
			return err
		})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("stacking layer %s: %w", next.Data, err), top.Close())
	}
	return l, nil
}

// restack seals the layer and puts what top has on it.
func (u *Upper) restack(top *Upper) (*Layer, error) {
	entries := u.index.entries()
	if err := u.seal(entries); err != nil {
		return nil, err
	}
	l := u.body.layer(entries)
	size, err := u.file.size()
	if err != nil {
		return nil, errors.Join(err, u.file.truncate(u.body.end()))
	}
	l.r = &reader{hostFile: u.file, name: l.String(), n: size}
	l.kind = kindOf(&header{}, &header{flags: u.body.flags()})
	u.mu.Lock()
	defer u.mu.Unlock()
	below := &overlaid{tier: u.tier, disk: u.Size()}
	u.below = append(u.below, u.body)
	u.body = top.body
	u.body.move(u)
	u.tier = tier{file: top.file, lower: below}
	u.era = &era{}
	return l, nil
}

// Grow makes the disk larger, to size bytes. It can't be made smaller.
func (u *Upper) Grow(ctx context.Context, size int64) error {
	leave, err := u.enter(ctx, everyone)
	if err != nil {
		return fmt.Errorf("growing layer: %w", err)
	}
	defer leave()
	id := u.body.identity()
	id.VirtualSize = size
	switch {
	case size < u.Size():
		err = fmt.Errorf("%d bytes are less than the %d it has", size, u.Size())
	case size%SectorSize != 0:
		err = fmt.Errorf("%d bytes are not whole sectors", size)
	default:
		err = id.checkSize()
	}
	if err == nil {
		err = u.body.grow(ctx, size)
	}
	if err != nil {
		return fmt.Errorf("growing layer: %w", err)
	}
	u.disk.Store(size)
	return nil
}
