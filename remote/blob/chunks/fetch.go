package chunks

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/remote/blob"
)

// load returns header and index, which it reads unless they are there, with the
// pages that come along. Readers that come together each read for themselves:
// what joins reads above knows which of them are urgent.
func (v *verified) load(ctx context.Context, table blob.ReaderAt) (*index, error) {
	if ix := v.index.Load(); ix != nil {
		return ix, nil
	}
	first, tailAt, n := tail(v.ref.Size)
	tail := make([]byte, n)
	var tailErr error
	var headFrom, tailFrom *blob.Origins
	var head []byte
	var ix *index
	g, ctx := errgroup.WithContext(ctx)
	if n > 0 {
		g.Go(func() error {
			var octx context.Context
			octx, tailFrom = blob.WithOrigins(ctx)
			tailErr = blob.ReadFull(octx, table, tail, tailAt)
			return nil // it was worth a try
		})
	}
	g.Go(func() (err error) {
		headFrom, err = v.part(ctx, table, tablePart{
			read: func(ctx context.Context) ([]byte, error) { return readHead(ctx, table) },
			check: func(raw []byte) (err error) {
				head = raw
				ix, err = parseHead(raw, v.ref.Size, v.ref.Root)
				return err
			},
		})
		return err
	})
	if err := g.Wait(); err != nil {
		if _, wrong := errors.AsType[*Error](err); wrong {
			blob.Discard(table, tailAt, n) // nothing says whether that is right
		}
		return nil, err
	}
	if ix.covered != v.covered {
		return nil, blob.Permanent(fmt.Errorf("blob %s: chunk table covers %d bytes, not the %d before it", v.Descriptor().Digest, ix.covered, v.covered))
	}
	v.keep(ix, 0, head[min(ix.pagesAt(), int64(len(head))):], fetched{table, headFrom})
	if off, _ := ix.page(first); n > 0 && tailErr == nil && off == tailAt {
		v.keep(ix, first, tail, fetched{table, tailFrom})
	}
	v.index.Store(ix)
	return ix, nil
}

// fetched is where a part of the table was read, and who served it.
type fetched struct {
	table   blob.ReaderAt
	origins *blob.Origins
}

// keep keeps the whole pages of raw, which starts with page first. One that is
// wrong is nobody's error yet: who needs it will read it again. But only now is
// it known who served it.
func (v *verified) keep(ix *index, first int64, raw []byte, from fetched) {
	for i := first; i < ix.pages(); i++ {
		at, leaves := ix.page(i)
		n := leaves * recordSize
		if len(raw) < n {
			return
		}
		p, err := ix.parsePage(i, slices.Clone(raw[:n]))
		switch {
		case err == nil:
			v.pages.put(i, p)
		case blob.IsPermanent(err): // not about the hash
		default:
			if who, _ := v.served(at, n, from); len(who) > 0 {
				v.drop(at, n, from)
			}
		}
		raw = raw[n:]
	}
}

// served returns whom to suspect of n bytes at off of the table, as
// blob.Origins.Suspects does.
func (v *verified) served(off int64, n int, from fetched) (who []string, staged bool) {
	return from.origins.Suspects(v.ref.Offset+off, int64(n))
}

// drop reports n bytes at off of the table, which are wrong, has a cache above
// that holds them forget them, and rejects who served them.
func (v *verified) drop(off int64, n int, from fetched) {
	blob.Discard(from.table, off, int64(n))
	served, _ := v.served(off, n, from)
	v.failed(-1, v.ref.Offset+off, n, served)
	for _, origin := range served {
		if v.ref.Detached() {
			blob.Reject(from.table, origin)
		} else {
			blob.Reject(v.Blob, origin)
		}
	}
}

// fetchPages reads the pages that s lacks, neighbours with one read.
func (v *verified) fetchPages(ctx context.Context, s span, table blob.ReaderAt) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := 0; i < len(s.pages); {
		if s.pages[i] != nil {
			i++
			continue
		}
		k := i
		for k < len(s.pages) && s.pages[k] == nil {
			k++
		}
		missing := span{s.ix, s.first + int64(i), s.pages[i:k]}
		g.Go(func() error { return v.fetchRun(ctx, missing, table) })
		i = k
	}
	return g.Wait()
}

// fetchRun reads all pages of s and keeps them.
func (v *verified) fetchRun(ctx context.Context, s span, table blob.ReaderAt) error {
	off, n := s.ix.extent(s.first, s.first+int64(len(s.pages))-1)
	raw := make([]byte, n)
	_, err := v.part(ctx, table, tablePart{
		off:  off,
		read: func(ctx context.Context) ([]byte, error) { return raw, blob.ReadFull(ctx, table, raw, off) },
		check: func(raw []byte) error {
			for i := range s.pages {
				number := s.first + int64(i)
				at, leaves := s.ix.page(number)
				at -= off
				// Each has its own memory, or one would keep all.
				p, err := s.ix.parsePage(number, slices.Clone(raw[at:at+int64(leaves*recordSize)]))
				if err != nil {
					return err
				}
				s.pages[i] = p
			}
			return nil
		},
	})
	if err != nil {
		return err
	}
	for i, p := range s.pages {
		v.pages.put(s.first+int64(i), p)
	}
	return nil
}

// tablePart is a part of the table: where it starts, how to read it, and what
// is wrong with what was read. An error of check that is permanent is not
// about the hash.
type tablePart struct {
	off   int64
	read  func(ctx context.Context) ([]byte, error)
	check func(raw []byte) error
}

// part reads a part of the table until it is right, and returns who served it. A
// cache above that holds a wrong copy is asked to forget it.
func (v *verified) part(ctx context.Context, table blob.ReaderAt, t tablePart) (*blob.Origins, error) {
	var who suspects
	for {
		octx, origins := blob.WithOrigins(ctx)
		raw, err := t.read(octx)
		if err != nil {
			return nil, fmt.Errorf("reading the chunk table of %s: %w", blob.Name(v.Blob), err)
		}
		reason := t.check(raw)
		if reason == nil {
			return origins, nil
		}
		if blob.IsPermanent(reason) {
			return nil, fmt.Errorf("blob %s: %w", v.Descriptor().Digest, reason)
		}
		from := fetched{table, origins}
		v.drop(t.off, len(raw), from)
		served, staged := v.served(t.off, len(raw), from)
		who.add(served, staged, origins, true)
		if who.exhausted() {
			return nil, who.err(Error{
				Blob: v.Descriptor().Digest, Leaf: -1, Offset: v.ref.Offset + t.off, Length: int64(len(raw)), Err: reason,
			})
		}
	}
}
