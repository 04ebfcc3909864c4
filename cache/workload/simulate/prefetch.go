package simulate

import (
	"container/list"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// Prefetch is fetching layers before they are asked for: what was pushed to a
// repository is fetched when somebody else asks for a manifest there, and a hit when
// it is then asked for.
type Prefetch struct {
	Pushed   time.Duration `json:"pushed"`  // how long a pushed layer is remembered
	Fetched  time.Duration `json:"fetched"` // how long a prefetched layer is kept
	Identity LayerIdentity `json:"identity"`
	// Tolerance is how many bytes less than sizes may differ by, with BySize. Default
	// 1000, as the original has it.
	Tolerance int64 `json:"tolerance,omitempty"`
}

// LayerIdentity is what tells that the layer asked for is one that was pushed.
type LayerIdentity string

// Identities of layers.
const (
	ByLayer LayerIdentity = "layer" // the last element of the URI
	// BySize takes a layer of about the same size in the same repository. The
	// published traces leave no other way: they name what was pushed by its upload.
	BySize LayerIdentity = "size"
)

// Validate says what is wrong with p.
func (p Prefetch) Validate() error {
	switch {
	case p.Pushed <= 0 || p.Fetched <= 0:
		return fmt.Errorf("simulating prefetching: %v and %v are not both times above 0", p.Pushed, p.Fetched)
	case p.Identity != ByLayer && p.Identity != BySize:
		return fmt.Errorf("simulating prefetching: layers are told by %q or %q, not by %q", ByLayer, BySize, p.Identity)
	case p.Tolerance < 0:
		return fmt.Errorf("simulating prefetching: %d bytes are no tolerance", p.Tolerance)
	}
	return nil
}

// PrefetchCell is what prefetching did.
type PrefetchCell struct {
	Prefetch
	Pushes    uint64 `json:"pushes"`    // layers that were pushed
	Manifests uint64 `json:"manifests"` // that were asked for
	// Layers are the layers asked for: hits were prefetched.
	Layers Tally `json:"layers"`

	// Fetches and FetchedBytes are the cost: what was fetched ahead.
	Fetches      uint64 `json:"fetches"`
	FetchedBytes int64  `json:"fetchedBytes"`
	Good         uint64 `json:"good"` // fetches that were asked for
	Bad          uint64 `json:"bad"`  // fetches that were not
	BadBytes     int64  `json:"badBytes"`
	Peak         int64  `json:"peak"` // bytes kept at the same time
}

// Ratio returns hits for each fetch, 0 without any.
func (c PrefetchCell) Ratio() float64 {
	if c.Good+c.Bad == 0 {
		return 0
	}
	return float64(c.Layers.Hits) / float64(c.Good+c.Bad)
}

// Prefetcher simulates prefetching with several settings in one pass.
type Prefetcher struct {
	all  []*prefetching
	seed maphash.Seed
}

// NewPrefetcher returns a prefetcher of the settings given, which are valid.
func NewPrefetcher(settings ...Prefetch) (*Prefetcher, error) {
	p := &Prefetcher{seed: maphash.MakeSeed()}
	for _, s := range settings {
		if err := s.Validate(); err != nil {
			return nil, err
		}
		if s.Tolerance == 0 {
			s.Tolerance = 1000
		}
		p.all = append(p.all, &prefetching{cell: PrefetchCell{Prefetch: s}, repos: make(map[uint64]*pushes)})
	}
	return p, nil
}

// Through returns r, with what is read from it told to p.
func (p *Prefetcher) Through(r trace.Reader) trace.Reader { return &overheard{r, p} }

type overheard struct {
	trace.Reader
	p *Prefetcher
}

func (o *overheard) Next() (trace.Request, error) {
	x, err := o.Reader.Next()
	if err == nil {
		o.p.Add(x)
	}
	return x, err
}

// Add takes the next request of the trace. Those that were not answered with a
// success, or have no size, are left out.
func (p *Prefetcher) Add(x trace.Request) {
	t := trace.Parse(x.URI)
	if !succeeded(x) || t.Kind != trace.Manifest && x.Size < 0 {
		return
	}
	ev := event{at: x.Delay, repo: maphash.String(p.seed, t.Repository), client: maphash.String(p.seed, x.Client), size: x.Size}
	switch {
	case x.Method == "PUT" && (t.Kind == trace.Blob || t.Kind == trace.Upload):
		ev.kind = pushed
	case x.Method == "GET" && t.Kind == trace.Manifest:
		ev.kind = manifested
	case x.Method == "GET" && t.Kind == trace.Blob:
		ev.kind = asked
	default:
		return
	}
	ev.layer = maphash.String(p.seed, t.Reference)
	for _, f := range p.all {
		f.add(ev)
	}
}

// Cells returns what was done up to now; what is still kept counts as if it were
// dropped now.
func (p *Prefetcher) Cells() []PrefetchCell {
	var out []PrefetchCell
	for _, f := range p.all {
		c := f.cell
		for _, r := range f.repos {
			for _, l := range r.fetched {
				c.dropped(l)
			}
		}
		out = append(out, c)
	}
	return out
}

// event is a request that matters here.
type event struct {
	kind                int
	at                  time.Duration
	repo, client, layer uint64
	size                int64
}

const (
	pushed = iota
	manifested
	asked
)

// prefetching is one setting in the middle of a trace.
type prefetching struct {
	cell  PrefetchCell
	repos map[uint64]*pushes
	kept  int64

	// What ends when, the first one first.
	forget []remembered
	drop   list.List // of *fetched
}

// remembered is when the oldest layer of a repository that is known was pushed.
type remembered struct {
	at   time.Duration
	repo *pushes
}

// pushes is what is known of a repository.
type pushes struct {
	name   uint64
	layers []layer // pushed, the oldest first
	first  int     // number of layers[0] among all that were ever pushed
	// seen is up to which number a client's manifests had layers fetched.
	seen    map[uint64]int
	fetched []*fetched // by key
}

type layer struct {
	key    uint64
	client uint64
	size   int64
}

// fetched is a prefetched layer.
type fetched struct {
	repo *pushes
	key  uint64 // of its layer, or its size
	size int64
	at   time.Duration
	hits uint64
	turn *list.Element // in prefetching.drop
}

func (f *prefetching) add(ev event) {
	f.expire(ev.at)
	r := f.repos[ev.repo]
	switch ev.kind {
	case pushed:
		f.cell.Pushes++
		if r == nil {
			r = &pushes{name: ev.repo, seen: make(map[uint64]int)}
			f.repos[ev.repo] = r
		}
		r.layers = append(r.layers, layer{f.key(ev), ev.client, ev.size})
		f.forget = append(f.forget, remembered{ev.at, r})
	case manifested:
		f.cell.Manifests++
		if r != nil {
			f.fetch(r, ev)
		}
	case asked:
		hit := r != nil && f.ask(r, ev)
		f.cell.Layers.add(ev.size, hit)
	}
}

func (f *prefetching) key(ev event) uint64 {
	if f.cell.Identity == BySize {
		return uint64(ev.size)
	}
	return ev.layer
}

// fetch fetches what was pushed since the client last asked for a manifest.
func (f *prefetching) fetch(r *pushes, ev event) {
	from := max(r.seen[ev.client], r.first)
	for _, l := range r.layers[from-r.first:] {
		if l.client == ev.client {
			continue
		}
		i, there := slices.BinarySearchFunc(r.fetched, l.key, (*fetched).compare)
		if there {
			r.fetched[i].at = ev.at
			f.drop.MoveToBack(r.fetched[i].turn)
			continue
		}
		got := &fetched{repo: r, key: l.key, size: l.size, at: ev.at}
		r.fetched = slices.Insert(r.fetched, i, got)
		got.turn = f.drop.PushBack(got)
		f.cell.Fetches++
		f.cell.FetchedBytes += l.size
		f.kept += l.size
		f.cell.Peak = max(f.cell.Peak, f.kept)
	}
	r.seen[ev.client] = r.first + len(r.layers)
}

func (l *fetched) compare(key uint64) int {
	switch {
	case l.key < key:
		return -1
	case l.key > key:
		return 1
	}
	return 0
}

// ask reports whether the layer was prefetched: with BySize, the one whose size is
// nearest.
func (f *prefetching) ask(r *pushes, ev event) bool {
	key := f.key(ev)
	i, there := slices.BinarySearchFunc(r.fetched, key, (*fetched).compare)
	if !there && f.cell.Identity == BySize {
		off := func(k int) int64 {
			if k < 0 || k >= len(r.fetched) {
				return f.cell.Tolerance
			}
			return max(r.fetched[k].size-ev.size, ev.size-r.fetched[k].size)
		}
		if off(i-1) <= off(i) {
			i--
		}
		there = off(i) < f.cell.Tolerance
	}
	if there {
		r.fetched[i].hits++
	}
	return there
}

// expire forgets and drops what is too old.
func (f *prefetching) expire(now time.Duration) {
	for len(f.forget) > 0 && now-f.forget[0].at > f.cell.Pushed {
		r := f.forget[0].repo
		f.forget = f.forget[1:]
		r.layers = r.layers[1:]
		r.first++
		f.tidy(r)
	}
	for e := f.drop.Front(); e != nil; e = f.drop.Front() {
		l := e.Value.(*fetched)
		if now-l.at <= f.cell.Fetched {
			return
		}
		f.drop.Remove(e)
		i, _ := slices.BinarySearchFunc(l.repo.fetched, l.key, (*fetched).compare)
		l.repo.fetched = slices.Delete(l.repo.fetched, i, i+1)
		f.kept -= l.size
		f.cell.dropped(l)
		f.tidy(l.repo)
	}
}

// tidy forgets a repository of which nothing is known.
func (f *prefetching) tidy(r *pushes) {
	if len(r.layers) == 0 && len(r.fetched) == 0 {
		delete(f.repos, r.name)
	}
}

func (c *PrefetchCell) dropped(l *fetched) {
	if l.hits > 0 {
		c.Good++
		return
	}
	c.Bad++
	c.BadBytes += l.size
}
