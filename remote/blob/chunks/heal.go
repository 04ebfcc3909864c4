package chunks

import (
	"context"
	"fmt"
	"slices"

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
	staged  bool     // a try was in vain because of what was staged
}

// add notes that a piece, read with o, was wrong; served is who served it. staged
// tells that they are no host and, rejected, do not serve it again: that says
// nothing about hosts, and is no try of theirs. cached tells that pieces of
// unknown origin may come from a cache.
func (s *suspects) add(served []string, staged bool, o *blob.Origins, cached bool) {
	s.absent = s.absent || o.AnyFailed()
	if staged && !s.staged {
		s.staged = true
		return
	}
	s.tries++
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

// failed tells the observer of a chunk that is wrong, once for each of those who
// served a part of it.
func (v *verified) failed(number, off int64, n int, served []string) {
	if v.o == nil {
		return
	}
	if len(served) == 0 {
		served = []string{""}
	}
	for _, origin := range served {
		v.o.VerifyFailed(v.Descriptor().Digest, number, off, int64(n), origin)
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
	var staged bool
	for _, l := range wrong {
		by, some := origins.Suspects(l.off, int64(l.length))
		staged = staged || some
		v.failed(l.number, l.off, l.length, by)
		for _, origin := range by {
			if !slices.Contains(served, origin) {
				served = append(served, origin)
				blob.Reject(v.Blob, origin)
			}
		}
	}
	who.add(served, staged, origins, false)
}
