package simulate_test

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
)

// slowCluster is a cluster as one would write its rules down: lists, which are looked
// through from the beginning.
type slowCluster struct {
	c      simulate.Cluster
	sizes  []int64
	shared bool
	now    int64
	first  int64
	n      int
	cell   simulate.ClusterCell

	disks   []slowLRU
	tier    []uint32 // the oldest first
	under   []slowFetch
	begun   int
	known   []slowKnown // holders, who said it last at the end
	leases  []slowFetch
	claims  []uint32
	stored  []uint32
	expires map[uint32]int64
	permits []slowPermit
	asked   []uint64
	sent    []int64
	taken   []int64
	ops     map[int64]int64    // by second
	hours   map[int64]int64    // leases and claims
	minutes map[[2]int64]int64 // by replica and minute
}

// slowFetch is a fetch, or a write to the tier.
type slowFetch struct {
	replica int
	id      uint32
	ends    int64
	begun   int
	kind    string
}

func (f slowFetch) fetches() bool { return f.kind != "write" && f.kind != "again" }

type slowKnown struct {
	replica int
	id      uint32
	at      int64
}

func (k slowKnown) of(replica int, id uint32) bool { return k.replica == replica && k.id == id }

type slowPermit struct {
	replica int
	node    uint32
	id      uint32
	until   int64
}

func newSlowCluster(c simulate.Cluster, cell simulate.ClusterCell, sizes []int64) *slowCluster {
	n := cell.Replicas
	s := &slowCluster{
		c: c, sizes: sizes, shared: cell.Shared, expires: map[uint32]int64{}, ops: map[int64]int64{}, hours: map[int64]int64{}, minutes: map[[2]int64]int64{},
		asked: make([]uint64, n), sent: make([]int64, n), taken: make([]int64, n),
		cell: simulate.ClusterCell{Replicas: n, Shared: cell.Shared, Spread: cell.Spread, Policy: cell.Policy, L1: cell.L1, L2: cell.L2},
	}
	for range n {
		s.disks = append(s.disks, slowLRU{capacity: cell.L1, sizes: sizes})
	}
	return s
}

func (s *slowCluster) redis() bool { return s.shared && !s.c.NoRedis }
func (s *slowCluster) peers() bool { return s.redis() && !s.c.NoPeers }

func (s *slowCluster) op(of *uint64) {
	*of++
	s.ops[s.now/1e9]++
}

func count(f *simulate.Flow, size int64) { f.Requests++; f.Bytes += size }

func (s *slowCluster) access(a simulate.Access) {
	at := a.Time
	if s.c.Rate > 0 {
		at = int64(float64(s.n) / s.c.Rate * 1e9)
	}
	if s.n == 0 {
		s.first = at
	}
	s.until(at)
	s.now = at
	s.cell.Span = time.Duration(at - s.first)
	k := 0
	switch n := uint64(s.cell.Replicas); s.c.Spread {
	case simulate.ByTurn:
		k = s.n % int(n)
	case simulate.ByHash:
		k = int(simulate.Scatter(uint64(a.ID)) % n)
	default:
		k = int(simulate.Scatter(uint64(a.Node)) % n)
	}
	s.n++
	s.asked[k]++
	count(&s.cell.All, s.sizes[a.ID])
	s.permit(k, a)
	joins := slices.ContainsFunc(s.under, func(f slowFetch) bool { return f.replica == k && f.id == a.ID && f.fetches() })
	hit := s.disks[k].take(a.ID)
	for _, gone := range s.disks[k].put(a.ID) {
		if s.c.DropEvicted && s.peers() {
			s.drop(gone, k)
		}
	}
	switch {
	case joins:
		count(&s.cell.Joined, s.sizes[a.ID])
	case hit:
		count(&s.cell.Hits, s.sizes[a.ID])
	default:
		s.miss(k, a.ID)
	}
	s.measure()
}

func (s *slowCluster) permit(k int, a simulate.Access) {
	if s.c.PermissionTTL == 0 {
		return
	}
	find := func(replica int) int64 {
		for _, p := range s.permits {
			if p.replica == replica && p.node == a.Node && p.id == a.ID && p.until > s.now {
				return p.until
			}
		}
		return 0
	}
	use := &s.cell.Permits
	until := s.now + int64(s.c.PermissionTTL)
	switch {
	case find(k) > 0:
		use.Known++
		return
	case !s.redis():
		use.Checked++
	default:
		s.op(&s.cell.Redis.Ops.Granted)
		if theirs := find(-1); theirs > 0 {
			use.Granted++
			until = theirs
			break
		}
		use.Checked++
		s.op(&s.cell.Redis.Ops.Grant)
		s.permits = append(s.permits, slowPermit{-1, a.Node, a.ID, until})
	}
	s.permits = append(s.permits, slowPermit{k, a.Node, a.ID, until})
}

func (s *slowCluster) miss(k int, id uint32) {
	if !s.redis() {
		if s.cell.L2 > 0 {
			s.cell.Tier.Lists++
			if slices.Contains(s.tier, id) {
				s.fromTier(k, id, "take")
				return
			}
		}
		s.fromUpstream(k, id, false)
		return
	}
	s.op(&s.cell.Redis.Ops.Locate)
	if at, ok := s.expires[id]; ok && at-s.now < int64(s.c.Keep)/2 {
		s.expires[id] = s.now + int64(s.c.Keep)
	}
	for _, l := range s.leases {
		if l.id != id {
			continue
		}
		if !s.peers() {
			s.fromUpstream(k, id, false)
			return
		}
		count(&s.cell.Followed, s.sizes[id])
		s.between(l.replica, k, id)
		s.start("take", k, id, max(l.ends, s.now+slowTakes(s.c.Peer, s.sizes[id])))
		return
	}
	named := 0
	for _, h := range slices.Backward(slices.Clone(s.known)) {
		if h.id != id || h.replica == k || named == 4 || s.c.Keep > 0 && h.at+int64(s.c.Keep) <= s.now {
			continue
		}
		named++
		busy := slices.ContainsFunc(s.under, func(f slowFetch) bool { return f.replica == h.replica && f.id == id && f.fetches() })
		has := slices.Contains(s.disks[h.replica].order, id)
		if has && !busy {
			count(&s.cell.Peers, s.sizes[id])
			s.between(h.replica, k, id)
			s.start("take", k, id, s.now+slowTakes(s.c.Peer, s.sizes[id]))
			return
		}
		s.cell.Redis.Stale++
		if !has {
			s.drop(id, h.replica)
		}
	}
	lost := false
	if slices.Contains(s.stored, id) {
		if slices.Contains(s.tier, id) {
			s.fromTier(k, id, "take")
			return
		}
		lost = true
		s.cell.Tier.Missed++
		s.op(&s.cell.Redis.Ops.Unpublish)
		s.stored = slices.DeleteFunc(s.stored, func(x uint32) bool { return x == id })
	}
	if named > 0 || lost {
		s.op(&s.cell.Redis.Ops.Locate)
	}
	if s.cell.L2 > 0 && !lost && s.sizes[id] >= 1<<20 {
		s.cell.Tier.Lists++
		if slices.Contains(s.tier, id) {
			s.fromTier(k, id, "lease")
			return
		}
	}
	s.fromUpstream(k, id, true)
}

func slowTakes(l simulate.Line, size int64) int64 {
	if l.Rate == 0 {
		return int64(l.Latency)
	}
	return int64(l.Latency) + int64(float64(size)/float64(l.Rate)*1e9)
}

func (s *slowCluster) fromTier(k int, id uint32, kind string) {
	count(&s.cell.Stored, s.sizes[id])
	s.cell.Tier.Gets++
	s.start(kind, k, id, s.now+slowTakes(s.c.Tier, s.sizes[id]))
}

func (s *slowCluster) fromUpstream(k int, id uint32, lease bool) {
	count(&s.cell.Fetched, s.sizes[id])
	kind := "fetch"
	if lease {
		kind = "lease"
	}
	s.start(kind, k, id, s.now+slowTakes(s.c.Upstream, s.sizes[id]))
}

// renewals counts the thirds of the lease's life that are over before the fetch is.
func (s *slowCluster) renewals(took int64) (n uint64) {
	third := int64(s.c.LeaseTTL / 3)
	for at := third; at < took; at += third {
		n++
	}
	return n
}

func (s *slowCluster) start(kind string, k int, id uint32, ends int64) {
	if kind == "lease" {
		s.leases = append(s.leases, slowFetch{replica: k, id: id, ends: ends})
		s.hours[s.now/3600e9]++
		s.cell.Redis.Ops.Renew += s.renewals(ends - s.now)
	}
	s.begun++
	s.under = append(s.under, slowFetch{k, id, ends, s.begun, kind})
}

func (s *slowCluster) between(from, to int, id uint32) {
	s.cell.Between.Bytes += s.sizes[id]
	s.sent[from] += s.sizes[id]
	s.taken[to] += s.sizes[id]
	s.minutes[[2]int64{int64(from), s.now / 60e9}] += s.sizes[id]
}

func (s *slowCluster) drop(id uint32, k int) {
	if i := slices.IndexFunc(s.known, func(x slowKnown) bool { return x.of(k, id) }); i >= 0 {
		s.known = slices.Delete(s.known, i, i+1)
		s.op(&s.cell.Redis.Ops.Drop)
	}
}

// until has happen, one after the other, what ends until a time.
func (s *slowCluster) until(at int64) {
	for {
		next := -1
		for i, f := range s.under {
			if f.ends <= at && (next < 0 || f.ends < s.under[next].ends || f.ends == s.under[next].ends && f.begun < s.under[next].begun) {
				next = i
			}
		}
		if next < 0 {
			break
		}
		f := s.under[next]
		s.under = slices.Delete(s.under, next, next+1)
		s.now = f.ends
		s.forget()
		s.ended(f)
		s.measure()
	}
	s.now = at
	s.forget()
}

// forget has the index forget what it did not hear of for too long.
func (s *slowCluster) forget() {
	for id, at := range s.expires {
		if s.c.Keep == 0 || s.now < at {
			continue
		}
		s.known = slices.DeleteFunc(s.known, func(k slowKnown) bool { return k.id == id })
		s.stored = slices.DeleteFunc(s.stored, func(x uint32) bool { return x == id })
		delete(s.expires, id)
	}
}

func (s *slowCluster) ended(f slowFetch) {
	if f.kind == "write" {
		s.cell.Tier.Puts++
		s.cell.Tier.Written += s.sizes[f.id]
		if s.redis() {
			s.op(&s.cell.Redis.Ops.Publish)
			s.claims = slices.DeleteFunc(s.claims, func(x uint32) bool { return x == f.id })
			s.stored = slices.DeleteFunc(s.stored, func(x uint32) bool { return x == f.id })
			s.stored = append(s.stored, f.id)
			s.expires[f.id] = s.now + int64(s.c.Keep)
		}
		s.intoTier(f.id)
		return
	}
	if f.kind == "again" {
		s.share(f.replica, f.id)
		return
	}
	if f.kind == "lease" {
		s.op(&s.cell.Redis.Ops.Release)
		s.leases = slices.DeleteFunc(s.leases, func(l slowFetch) bool { return l.id == f.id })
	}
	s.share(f.replica, f.id)
}

func (s *slowCluster) share(k int, id uint32) {
	if !slices.Contains(s.disks[k].order, id) {
		return
	}
	if s.peers() {
		s.op(&s.cell.Redis.Ops.Hold)
		s.hold(id, k)
	}
	size := s.sizes[id]
	if size > s.cell.L2 || s.cell.L2 == 0 {
		return
	}
	took := slowTakes(s.c.Tier, size)
	if !s.redis() {
		s.cell.Tier.Lists++
		if slices.Contains(s.tier, id) {
			return
		}
		s.start("write", k, id, s.now+took)
		return
	}
	s.op(&s.cell.Redis.Ops.Claim)
	switch {
	case slices.Contains(s.stored, id):
		s.op(&s.cell.Redis.Ops.Look)
	case slices.Contains(s.claims, id):
		s.op(&s.cell.Redis.Ops.Look)
		s.start("again", k, id, s.now+int64(s.c.LeaseTTL)+int64(s.c.LeaseTTL)/2)
	default:
		s.hours[s.now/3600e9]++
		s.cell.Tier.Lists++
		if slices.Contains(s.tier, id) {
			s.op(&s.cell.Redis.Ops.Publish)
			s.stored = append(s.stored, id)
			s.expires[id] = s.now + int64(s.c.Keep)
			return
		}
		s.claims = append(s.claims, id)
		s.cell.Redis.Ops.RenewClaim += s.renewals(took)
		s.start("write", k, id, s.now+took)
	}
}

func (s *slowCluster) hold(id uint32, k int) {
	s.expires[id] = s.now + int64(s.c.Keep)
	s.known = slices.DeleteFunc(s.known, func(x slowKnown) bool { return x.of(k, id) })
	s.known = append(s.known, slowKnown{k, id, s.now})
	n := 0
	for _, x := range slices.Backward(slices.Clone(s.known)) {
		if x.id != id {
			continue
		}
		if n++; n > 8 {
			s.known = slices.DeleteFunc(s.known, func(y slowKnown) bool { return y == x })
		}
	}
}

func (s *slowCluster) intoTier(id uint32) {
	if slices.Contains(s.tier, id) {
		return
	}
	used := func() (n int64) {
		for _, x := range s.tier {
			n += s.sizes[x]
		}
		return n
	}
	for used()+s.sizes[id] > s.cell.L2 {
		s.tier = s.tier[1:]
		s.cell.Tier.Removes++
	}
	s.tier = append(s.tier, id)
}

// measure finds the most that the index knew.
func (s *slowCluster) measure() {
	if !s.redis() {
		return
	}
	blobs := map[uint32]bool{}
	for _, k := range s.known {
		blobs[k.id] = true
	}
	for _, l := range s.leases {
		blobs[l.id] = true
	}
	for _, id := range slices.Concat(s.claims, s.stored) {
		blobs[id] = true
	}
	x := &s.cell.Redis
	x.Blobs = max(x.Blobs, int64(len(blobs)))
	x.Holders = max(x.Holders, int64(len(s.known)))
	x.Objects = max(x.Objects, int64(len(s.tier)))
	permits := 0
	for _, p := range s.permits {
		if p.replica < 0 && p.until > s.now {
			permits++
		}
	}
	x.Permits = max(x.Permits, int64(permits))
}

func (s *slowCluster) end(evicted uint64) simulate.ClusterCell {
	for len(s.under) > 0 {
		ends := s.under[0].ends
		for _, f := range s.under {
			ends = min(ends, f.ends)
		}
		s.until(ends)
	}
	c := &s.cell
	for _, size := range s.sizes {
		c.Unique += size
	}
	c.Evicted = evicted // which the order of an LRU does not tell
	c.Busiest = slices.Max(s.asked)
	c.Between.Sent, c.Between.Taken = slices.Max(s.sent), slices.Max(s.taken)
	for _, n := range s.minutes {
		c.Between.Peak = max(c.Between.Peak, n/60)
	}
	for _, n := range s.ops {
		c.Redis.Busiest = max(c.Redis.Busiest, n)
	}
	if s.redis() {
		c.Redis.Idle = float64(c.Replicas) * (1/s.c.Beat.Seconds() + 0.5)
		m := s.c.Memory
		x := &c.Redis
		for _, n := range s.hours {
			x.Tokens = max(x.Tokens, n)
		}
		x.Memory = x.Blobs*m.Blob + max(0, x.Holders-x.Blobs)*m.Holder + x.Objects*m.Stored + x.Tokens*m.Token + x.Permits*m.Permit
	}
	return *c
}

// anyCluster is a cluster with something of everything, by chance.
func anyCluster(rng *rand.Rand) simulate.Cluster {
	yes := func() bool { return rng.IntN(2) == 0 }
	line := func() simulate.Line {
		if rng.IntN(4) == 0 {
			return simulate.Line{}
		}
		return simulate.Line{Latency: time.Duration(rng.Int64N(int64(3 * time.Minute))), Rate: rng.Int64N(20)}
	}
	c := simulate.Cluster{
		Replicas: []int{1, 2, 5, 25}, Spread: simulate.Spreads[rng.IntN(3)], Policy: policy.NameLRU, L1: simulate.Size{Share: 0.02 + 0.3*rng.Float64()},
		Divide: yes(), NoRedis: rng.IntN(5) == 0, NoPeers: rng.IntN(4) == 0, Upstream: line(), Peer: line(), Tier: line(), DropEvicted: yes(),
		LeaseTTL: 30 * time.Second, Beat: 5 * time.Second, Memory: simulate.RedisMemory{Blob: 1000, Holder: 10, Stored: 100, Token: 7, Permit: 3},
	}
	if yes() {
		c.L2 = simulate.Size{Share: 0.02 + 0.5*rng.Float64()}
	}
	if yes() {
		c.Keep = time.Duration(1 + rng.Int64N(int64(3*time.Hour)))
	}
	if yes() {
		c.PermissionTTL = time.Duration(1 + rng.Int64N(int64(time.Hour)))
	}
	if rng.IntN(4) == 0 {
		c.Rate = 0.01 + rng.Float64()
	}
	return c
}

// A cluster does what its rules say, whatever it is like.
func TestClusterAgainstPaper(t *testing.T) {
	seeds := uint64(40)
	if full {
		seeds = 1000
	}
	var all simulate.ClusterCell
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 11))
		d := stream(seed, 500+rng.IntN(700), 20+rng.IntN(100), false)
		c := anyCluster(rng)
		if seed%2 == 0 { // some larger than what the tier is looked through for
			for i := range d.Sizes {
				d.Sizes[i] <<= 14
			}
			for _, l := range []*simulate.Line{&c.Upstream, &c.Peer, &c.Tier} {
				l.Rate <<= 14
			}
		}
		for _, got := range run(t, d, simulate.Config{Cluster: c}).Cluster {
			slow := newSlowCluster(c, got, d.Sizes)
			for _, a := range d.Accesses.All() {
				slow.access(a)
			}
			if want := slow.end(got.Evicted); got != want {
				t.Errorf("seed %d, %+v:\n%+v, want\n%+v", seed, c, got, want)
			}
			sum(reflect.ValueOf(&all).Elem(), reflect.ValueOf(got))
		}
	}
	// What never happened was not compared.
	for _, v := range []any{all, all.Redis, all.Redis.Ops, all.Between, all.Tier, all.Permits} {
		for i, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
			if reflect.ValueOf(v).Field(i).IsZero() && f.Type.Kind() != reflect.String && f.Type.Kind() != reflect.Bool {
				t.Errorf("%T.%s is always 0", v, f.Name)
			}
		}
	}
}

// sum adds the numbers in a struct to those in another.
func sum(to, v reflect.Value) {
	switch to.Kind() {
	case reflect.Struct:
		for i := range to.NumField() {
			sum(to.Field(i), v.Field(i))
		}
	case reflect.Int, reflect.Int64:
		to.SetInt(to.Int() + v.Int())
	case reflect.Uint64:
		to.SetUint(to.Uint() + v.Uint())
	case reflect.Float64:
		to.SetFloat(to.Float() + v.Float())
	}
}
