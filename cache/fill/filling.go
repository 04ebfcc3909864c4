package fill

import (
	"slices"
	"sync"
	"time"

	"github.com/reprise-containers/reprise/cache"
)

// filling is a content that is being read or fetched.
type filling struct {
	g     *Group
	id    uint32
	size  int64
	users int // under Group.mu

	mu         sync.Mutex
	changed    chan struct{} // closed and replaced when something below, or the content, has changed
	fetches    []*fetch      // under way
	broken     int64         // where the last fetch that broke ended, plus one; 0 for none
	failed     int           // fetches in a row that brought nothing
	despair    int           // times there were too many of them,
	lastErr    error         // and with what the last of them ended
	verifying  bool
	completing bool      // the rest is in the queue for when nobody waits
	wrong      bool      // the content is not what its digest says
	right      bool      // it is; the cache may have dropped it for another copy of the same
	refused    time.Time // when the cache last did not take bytes
}

// refusedFor is how long readers go past a cache that refused bytes.
const refusedFor = time.Second

// fetch is one request. The fields of the second group are under filling.mu.
type fetch struct {
	f     *filling
	x     *cache.Content
	src   Source
	owner *Reader // whom its error belongs to

	Extent       // what was asked for
	pos    int64 // what is before it has come
	mixed  bool  // another one was to fetch some of it too: what is stored may be its bytes
}

// wake tells all who wait to look again; f.mu is held.
func (f *filling) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// place is what a reader finds at an offset; one of the fields says.
type place struct {
	held   int64         // so many bytes from there on are in the cache
	fetch  *fetch        // nobody fetches them: the reader has to start this one
	wait   chan struct{} // somebody does: closed when there is news
	direct bool          // the cache takes nothing
	err    error         // those for whom r waited failed too often
	wrong  bool          // the content is not to be used
}

// look says how things are at off for r, which wants all up to end.
func (f *filling) look(r *Reader, off, end int64) place {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wrong {
		return place{wrong: true}
	}
	here, until := r.x.Extent(off, end)
	if here {
		r.hopes = 0
		return place{held: until - off}
	}
	gap, other := f.gapAt(off, end, until)
	if other != nil {
		if other.owner != r && r.follows != other {
			r.follows = other
			f.g.count.joined.Add(1)
		}
		if r.hopes == 0 {
			r.hopes = f.despair + 1
		}
		return place{wait: f.changed}
	}
	if r.refused || time.Since(f.refused) < refusedFor {
		return place{direct: true}
	}
	if r.hopes > 0 && r.hopes <= f.despair {
		return place{err: f.lastErr}
	}
	if f.broken == off+1 {
		f.broken = 0
		f.g.count.takenOver.Add(1)
	}
	return place{fetch: f.enter(r, gap)}
}

// gapAt returns what of the bytes from off to until, none of which is there, nobody
// fetches, or the fetch that brings the one at off and is worth to be waited for by
// who wants all up to end; f.mu is held.
func (f *filling) gapAt(off, end, until int64) (Extent, *fetch) {
	gap := Extent{off, until}
	for _, t := range f.fetches {
		switch {
		case t.pos <= off && off < t.End:
			// One that is far behind a small need goes on, and will have what
			// is fetched here in between a second time.
			if off-t.pos <= f.g.cfg.JoinAhead || end-off > f.g.cfg.JoinAhead {
				return Extent{}, t
			}
		case off < t.Off:
			gap.End = min(gap.End, t.Off)
		}
	}
	return gap, nil
}

// enter begins a fetch of the gap for r, as far as it concerns the others; f.mu is
// held.
func (f *filling) enter(r *Reader, gap Extent) *fetch {
	t := &fetch{f: f, x: r.x.Clone(), src: r.src, owner: r, Extent: f.round(r.x, gap)}
	t.pos = t.Off
	for _, o := range f.fetches {
		if o.Off < t.End && t.Off < o.End {
			o.mixed, t.mixed = true, true
		}
	}
	f.fetches = append(f.fetches, t)
	return t
}

// round moves the ends of a gap outwards to multiples of Config.Rounding as far as
// nothing is there and nobody fetches it; f.mu is held.
func (f *filling) round(x *cache.Content, gap Extent) Extent {
	unit := f.g.cfg.Rounding
	if unit <= 1 {
		return gap
	}
	from, to := gap.Off/unit*unit, min((gap.End+unit-1)/unit*unit, f.size)
	for _, t := range f.fetches {
		if t.End <= gap.Off {
			from = max(from, t.End)
		}
		if t.Off >= gap.End {
			to = min(to, t.Off)
		}
		if t.Off < gap.Off && gap.Off < t.End {
			from = gap.Off
		}
	}
	for from < gap.Off {
		here, until := x.Extent(from, gap.Off)
		if !here && until == gap.Off {
			break
		}
		from = until
	}
	if gap.End < to {
		if here, until := x.Extent(gap.End, to); here {
			to = gap.End
		} else {
			to = until
		}
	}
	return Extent{from, to}
}

// arrived says that t has stored everything before pos.
func (f *filling) arrived(t *fetch, pos int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t.pos = pos
	if pos-t.Off >= enough {
		f.failed = 0
	}
	f.wake()
}

// failures returns how many fetches in a row brought nothing.
func (f *filling) failures() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// failing takes note of a fetch that brought nothing, for a reason that may pass.
// After some of them in a row everybody who waits gives up, not each after as many
// of its own.
func (f *filling) failing(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed++; f.failed >= f.g.cfg.Attempts {
		f.failed, f.lastErr = 0, err
		f.despair++
	}
}

// ended takes t out; refused says that the cache did not take its bytes.
func (f *filling) ended(t *fetch, broken, refused bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fetches = slices.DeleteFunc(f.fetches, func(o *fetch) bool { return o == t })
	if broken {
		f.broken = t.pos + 1
	}
	if refused {
		f.refused = time.Now()
		t.owner.refused = true
	}
	f.wake()
}
