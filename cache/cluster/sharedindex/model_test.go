package sharedindex_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
)

// model is what the index of one digest has to say. Each operation is done on Redis and
// on it.
type model struct {
	t        *testing.T
	w        world
	admin    redis.UniversalClient
	replicas map[string]*sharedindex.Index
	names    []string
	keys     []sharedindex.Key // verified, and of two origins

	leases  map[sharedindex.Key]map[uint64]*granted
	holders map[sharedindex.Key]map[string]bool
	last    map[sharedindex.Key]uint64 // largest token ever
	rng     *rand.Rand
	steps   []string
}

// granted is one lease that was granted: it is alive until it runs out, is released, is
// said to be over, or Redis is emptied.
type granted struct {
	sharedindex.Extent
	who   string
	alive bool
}

const modelSize = 40

// TestModel does random operations on Redis and on a model in Go.
func TestModel(t *testing.T) {
	steps := 6000
	if testing.Short() {
		steps = 500
	}
	onBoth(t, func(t *testing.T, w world) {
		seed := rand.Uint64()
		m := &model{t: t, w: w, admin: w.client(t), rng: rand.New(rand.NewPCG(seed, 1))}
		m.replicas = map[string]*sharedindex.Index{}
		for _, n := range []string{"a:1", "b:1", "c:1"} {
			m.replicas[n] = w.replica(t, n)
			m.names = append(m.names, n)
		}
		d := fresh()
		m.keys = []sharedindex.Key{{Digest: d}, {Digest: d, Origin: "one"}, {Digest: d, Origin: "two"}}
		m.last = map[sharedindex.Key]uint64{}
		m.forget()
		for i := range steps {
			m.step()
			if t.Failed() {
				t.Fatalf("seed %d, step %d:\n%s", seed, i, strings.Join(m.steps[max(0, len(m.steps)-20):], "\n"))
			}
		}
	})
}

func (m *model) forget() {
	m.leases = map[sharedindex.Key]map[uint64]*granted{}
	m.holders = map[sharedindex.Key]map[string]bool{}
	for _, k := range m.keys {
		m.leases[k] = map[uint64]*granted{}
		m.holders[k] = map[string]bool{}
	}
}

func (m *model) step() {
	k := m.keys[m.rng.IntN(len(m.keys))]
	name := m.names[m.rng.IntN(len(m.names))]
	x, ctx := m.replicas[name], m.t.Context()
	token, lease := m.some(k)
	mine := lease != nil && lease.alive && lease.who == name
	switch n := m.rng.IntN(100); {
	case n < 50:
		m.locate(x, name, k)
	case n < 60:
		m.note("%s renews %q %d", name, k.Origin, token)
		m.expect(x.Renew(ctx, k, token), mine)
	case n < 75:
		held := m.rng.IntN(6) == 0
		m.note("%s releases %q %d, held %v", name, k.Origin, token, held)
		m.expect(x.Release(ctx, k, token, held), mine)
		if mine {
			lease.alive = false
			m.holders[k][name] = m.holders[k][name] || held
		}
	case n < 85:
		m.note("%q %d runs out", k.Origin, token)
		if lease != nil && lease.alive {
			key := fmt.Sprintf("test:{%s}:lease", k.Digest)
			if k.Origin != "" {
				key += ":" + k.Origin
			}
			must(m.t, m.admin.HSet(ctx, key, fmt.Sprint(token), fmt.Sprintf("1 %d %d %s", lease.Off, lease.End, lease.who)).Err())
			lease.alive = false
		}
	case n < 87:
		m.note("%s holds %q", name, k.Origin)
		must(m.t, x.Hold(ctx, k))
		m.holders[k][name] = true
	case n < 99:
		who := m.names[m.rng.IntN(len(m.names))]
		m.note("%s drops %q of %s", name, k.Origin, who)
		must(m.t, x.Drop(ctx, who, k))
		delete(m.holders[k], who)
	default:
		m.note("Redis loses all")
		m.w.empty(m.t)
		m.forget()
	}
}

func (m *model) note(format string, args ...any) {
	m.steps = append(m.steps, fmt.Sprintf(format, args...))
}

func (m *model) expect(err error, mine bool) {
	if mine && err != nil || !mine && !errors.Is(err, sharedindex.ErrFenced) {
		m.t.Errorf("the lease is the caller's: %v, the error is %v", mine, err)
	}
}

// some returns a token of k that was granted, mostly, or one that was not.
func (m *model) some(k sharedindex.Key) (uint64, *granted) {
	var alive, all []uint64
	for token, l := range m.leases[k] {
		all = append(all, token)
		if l.alive {
			alive = append(alive, token)
		}
	}
	slices.Sort(alive)
	slices.Sort(all)
	from := all
	if len(alive) > 0 && m.rng.IntN(4) > 0 {
		from = alive
	}
	if len(from) == 0 || m.rng.IntN(20) == 0 {
		return 1 + m.rng.Uint64N(100), nil
	}
	token := from[m.rng.IntN(len(from))]
	return token, m.leases[k][token]
}

func (m *model) locate(x *sharedindex.Index, name string, k sharedindex.Key) {
	off := m.rng.Int64N(modelSize)
	w := wanted(k, off, off+1+m.rng.Int64N(modelSize-off))
	w.Insist = m.rng.IntN(2) == 0
	if m.rng.IntN(4) == 0 {
		w.Over, _ = m.some(k)
	}
	p, err := x.Locate(m.t.Context(), w)
	m.note("%s locates %q from %d to %d, insist %v, over %d: %+v %+v %q", name, k.Origin, w.Off, w.End, w.Insist, w.Over, p.Lease, p.Fetching, p.Holders)
	must(m.t, err)
	if l := m.leases[k][w.Over]; l != nil {
		l.alive = false
	}
	m.compare(p, w, name)
	if p.Lease != nil {
		if p.Lease.Token <= m.last[k] {
			m.t.Errorf("token %d after %d", p.Lease.Token, m.last[k])
		}
		m.last[k] = p.Lease.Token
		m.leases[k][p.Lease.Token] = &granted{p.Lease.Extent, name, true}
	}
}

// compare checks an answer against the model's own, which is made another way: byte by
// byte.
func (m *model) compare(p sharedindex.Place, w sharedindex.Wanted, name string) {
	var taken [modelSize]uint64
	for token, l := range m.leases[w.Key] {
		for i := l.Off; l.alive && i < l.End; i++ {
			if taken[i] != 0 {
				m.t.Errorf("byte %d is in two leases", i)
			}
			taken[i] = token
		}
	}
	var holders []string
	for _, n := range m.names {
		if n != name && (m.holders[w.Key][n] || m.holders[sharedindex.Key{Digest: w.Digest}][n]) {
			holders = append(holders, n)
		}
	}
	slices.Sort(p.Holders)
	if !slices.Equal(p.Holders, holders) || p.Stored != nil {
		m.t.Errorf("holders %q, not %q; stored %v", p.Holders, holders, p.Stored)
	}
	if token := taken[w.Off]; token != 0 {
		l := m.leases[w.Key][token]
		want := sharedindex.Fetching{Lease: sharedindex.Lease{Token: token, Extent: l.Extent}, Replica: l.who}
		if p.Lease != nil || p.Fetching == nil || *p.Fetching != want {
			m.t.Errorf("not %+v", want)
		}
		return
	}
	if !w.Insist && len(holders) > 0 {
		if p.Lease != nil || p.Fetching != nil {
			m.t.Errorf("there are holders")
		}
		return
	}
	end := w.Off
	for end < w.End && taken[end] == 0 {
		end++
	}
	if p.Fetching != nil || p.Lease == nil || p.Lease.Extent != (sharedindex.Extent{Off: w.Off, End: end}) {
		m.t.Errorf("no lease from %d to %d", w.Off, end)
	}
}

// TestLeasesConcurrently: no two leases that are held at the same time have a byte in
// common, whoever asks. Their holders mark their bytes.
func TestLeasesConcurrently(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		k := sharedindex.Key{Digest: fresh(), Origin: "up"}
		var marks [64]atomic.Int32
		var granted atomic.Int64
		var mu sync.Mutex
		seen := map[uint64]bool{}
		var g errgroup.Group
		for i := range 8 {
			x := w.replica(t, fmt.Sprintf("r%d:1", i))
			rng := rand.New(rand.NewPCG(uint64(i), 7))
			g.Go(func() error {
				for range 300 {
					off := rng.Int64N(int64(len(marks)))
					want := wanted(k, off, off+1+rng.Int64N(int64(len(marks))-off))
					want.Insist = true
					p, err := x.Locate(t.Context(), want)
					if err != nil {
						return err
					}
					if p.Lease == nil {
						continue
					}
					granted.Add(1)
					mu.Lock()
					again := seen[p.Lease.Token]
					seen[p.Lease.Token] = true
					mu.Unlock()
					if again {
						return fmt.Errorf("token %d was granted twice", p.Lease.Token)
					}
					for i := p.Lease.Off; i < p.Lease.End; i++ {
						if marks[i].Add(1) != 1 {
							return fmt.Errorf("byte %d is in two leases", i)
						}
					}
					for i := p.Lease.Off; i < p.Lease.End; i++ {
						marks[i].Add(-1)
					}
					if err := x.Release(t.Context(), k, p.Lease.Token, false); err != nil {
						return err
					}
				}
				return nil
			})
		}
		must(t, g.Wait())
		if granted.Load() == 0 {
			t.Fatal("no lease was granted")
		}
	})
}
