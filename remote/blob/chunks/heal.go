package chunks

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/remote/blob"
)

// maxTries is how often a piece is read before it is given up, if not every
// host served it wrong before that.
const maxTries = 4

// suspects are who served a piece whose hash is wrong.
type suspects struct {
	tries   int
	origins []string
	alone   []string // those who served all of it; "" for unknown
	all     bool     // all that can be asked were
	absent  bool     // a host could not be asked
}

// add notes that a piece, read with o, was wrong; served is who served it.
// cached tells that pieces of unknown origin may come from a cache.
func (s *suspects) add(served []string, o *blob.Origins, cached bool) {
	s.tries++
	s.absent = s.absent || o.AnyFailed()
	alone := ""
	switch {
	case len(served) == 1:
		alone = served[0]
		fallthrough
	case len(served) == 0 && !cached:
		s.all = s.all || slices.Contains(s.alone, alone)
		s.alone = append(s.alone, alone)
	default: // a piece of which two hosts served a part says nothing about either
	}
	for _, origin := range served {
		if !slices.Contains(s.origins, origin) {
			s.origins = append(s.origins, origin)
		}
	}
}

// exhausted reports whether there is no sense in another try.
func (s *suspects) exhausted() bool { return s.all || s.tries >= maxTries }

// err is the error of a piece that stays wrong.
func (s *suspects) err(e Error) *Error {
	e.Origins, e.temporary = s.origins, s.absent
	return &e
}

func (v *verified) failed(number, off int64, n int, served []string) {
	if v.o != nil {
		v.o.VerifyFailed(v.Descriptor().Digest, number, off, int64(n), strings.Join(served, ", "))
	}
}

// settle reads the leaves bad, which are wrong, again until they are right. data
// starts at off and was read with origins. With an error it returns how many
// bytes at the start of data are verified.
func (v *verified) settle(ctx context.Context, data []byte, off int64, bad []leaf, origins *blob.Origins) (int, error) {
	for len(bad) > 0 {
		// Neighbours are read again together.
		k := 1
		for k < len(bad) && bad[k].number == bad[k-1].number+1 {
			k++
		}
		if at, err := v.heal(ctx, data, off, bad[:k:k], origins); err != nil {
			return int(at - off), err
		}
		bad = bad[k:]
	}
	return 0, nil
}

// heal reads the leaves of run, which are neighbours and wrong, again until they
// are right. data starts at off and was read with origins. With an error it
// returns where the first leaf starts that stays wrong.
func (v *verified) heal(ctx context.Context, data []byte, off int64, run []leaf, origins *blob.Origins) (int64, error) {
	var who suspects
	wrong := run
	for {
		v.blame(wrong, origins, &who)
		first, last := wrong[0], wrong[len(wrong)-1]
		if who.exhausted() {
			return first.off, who.err(Error{
				Blob: v.Descriptor().Digest, Leaf: first.number, Offset: first.off, Length: int64(first.length),
			})
		}
		var octx context.Context
		octx, origins = blob.WithOrigins(ctx)
		again := data[first.off-off : last.end()-off]
		if err := blob.ReadFull(octx, v.Blob, again, first.off); err != nil {
			return first.off, fmt.Errorf("reading chunk %d again, which was wrong: %w", first.number, err)
		}
		// Leaves between those two may have been right and be wrong now.
		wrong = nil
		for _, l := range run {
			if l.off >= first.off && l.end() <= last.end() && !l.matches(data[l.off-off:l.end()-off]) {
				wrong = append(wrong, l)
			}
		}
		if len(wrong) == 0 {
			return 0, nil
		}
	}
}

// blame reports wrong leaves and rejects who served them.
func (v *verified) blame(wrong []leaf, origins *blob.Origins, who *suspects) {
	var served []string
	for _, l := range wrong {
		by := origins.Of(l.off, int64(l.length))
		v.failed(l.number, l.off, l.length, by)
		for _, origin := range by {
			if !slices.Contains(served, origin) {
				served = append(served, origin)
				blob.Reject(v.Blob, origin)
			}
		}
	}
	who.add(served, origins, false)
}

// load returns header and index, which it reads unless they are there. Readers
// that come together each read for themselves: what joins reads above knows
// which of them are urgent.
func (v *verified) load(ctx context.Context, table blob.ReaderAt) (*index, error) {
	if ix := v.index.Load(); ix != nil {
		return ix, nil
	}
	var ix *index
	err := v.part(ctx, table, tablePart{
		read: func(ctx context.Context) ([]byte, error) { return readHead(ctx, table) },
		check: func(raw []byte) (err error) {
			ix, err = parseHead(raw, v.ref.Size, v.ref.Root)
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	if ix.covered != v.covered {
		return nil, blob.Permanent(fmt.Errorf("blob %s: chunk table covers %d bytes, not the %d before it", v.Descriptor().Digest, ix.covered, v.covered))
	}
	if ix.page0 != nil {
		if p, err := ix.parsePage(0, slices.Clone(ix.page0)); err == nil {
			v.pages.put(0, p)
		}
		ix.page0 = nil
	}
	v.index.Store(ix)
	return ix, nil
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
	err := v.part(ctx, table, tablePart{
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

// part reads a part of the table until it is right. A cache above that holds a
// wrong copy is asked to forget it.
func (v *verified) part(ctx context.Context, table blob.ReaderAt, t tablePart) error {
	var who suspects
	for {
		octx, origins := blob.WithOrigins(ctx)
		raw, err := t.read(octx)
		if err != nil {
			return fmt.Errorf("reading the chunk table of %s: %w", blob.Name(v.Blob), err)
		}
		reason := t.check(raw)
		if reason == nil {
			return nil
		}
		if blob.IsPermanent(reason) {
			return fmt.Errorf("blob %s: %w", v.Descriptor().Digest, reason)
		}
		blob.Discard(table, t.off, int64(len(raw)))
		off := v.ref.Offset + t.off // in the blob
		served := origins.Of(off, int64(len(raw)))
		v.failed(-1, off, len(raw), served)
		for _, origin := range served {
			if v.ref.Detached() {
				blob.Reject(table, origin)
			} else {
				blob.Reject(v.Blob, origin)
			}
		}
		who.add(served, origins, true)
		if who.exhausted() {
			return who.err(Error{
				Blob: v.Descriptor().Digest, Leaf: -1, Offset: off, Length: int64(len(raw)), Err: reason,
			})
		}
	}
}
