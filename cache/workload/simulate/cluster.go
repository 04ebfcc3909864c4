package simulate

import (
	"errors"
	"fmt"
	"time"

	"github.com/reprise-containers/reprise/cache/policy"
)

// Spread says which replica of a cluster gets a request.
type Spread string

// Spreads.
const (
	// ByClient has each client ask one replica.
	ByClient Spread = "client"
	// ByTurn has the replicas take turns, as a load balancer in front of them may.
	ByTurn Spread = "round-robin"
	// ByHash has each object asked of one replica, as a balancer that hashes the path.
	ByHash Spread = "hash-of-blob"
)

// Spreads are all of them.
var Spreads = []Spread{ByClient, ByTurn, ByHash}

// Cluster is replicas of the registry cache that share what they have: an index in
// Redis, each other's disks, and a tier behind them. It is simulated in virtual time at
// each number of replicas, and beside it the same replicas that share nothing.
//
// What is asked for is taken in at once, so that a single replica decides as a Cell of
// the same policy and size does; the fetch lasts as long as the line it comes over says,
// and requests for the same object until then join it. Of what a replica does not have,
// the index is asked: another one may be fetching it, others may have it, the tier may
// have it; who finds none of that fetches it from the upstream under a lease.
//
// That is what packages cluster, sharedindex and tier do, with whole objects: what another
// replica reads is no use of it, as in package fill; each one that got something tells the
// index, and tries to write it to the tier, whose list it looks at before. Different is that
// evictions are of objects, that the tier is swept at once and not each hour, and that
// replicas and lines never fail.
type Cluster struct {
	Replicas []int  // each number is simulated; none: nothing is
	Spread   Spread // default ByClient
	Policy   string // of L1; default lru
	// L1 is the disk of each replica, or with Divide that of all replicas together.
	L1     Size
	Divide bool
	// L2 is the tier behind them. Its zero value: there is none.
	L2 Size
	// NoRedis leaves out the index, and with it leases and peers: L2 is then found by
	// listing it.
	NoRedis bool
	NoPeers bool // nothing is fetched from other replicas
	// Rate is that of the requests a second, evenly, instead of the trace's times. A
	// trace without times has all requests at once, and fetches that end before the next
	// one, without it.
	Rate float64
	// Upstream, Peer and Tier are what fetches come over.
	Upstream, Peer, Tier Line
	// DropEvicted tells the index of each eviction. Otherwise it hears of it when
	// somebody asked the replica in vain.
	DropEvicted bool
	// Keep is how long the index knows what nobody told it of or asked for. 0: always.
	Keep     time.Duration
	LeaseTTL time.Duration // leases are renewed each third of it; default 10 s
	Beat     time.Duration // between two of a replica's; default 5 s
	// PermissionTTL is how long a client's permission for an object counts, in its replica
	// and, in Redis, for all. 0: permissions are not simulated.
	PermissionTTL time.Duration
	// Memory is what Redis takes.
	Memory RedisMemory
}

// RedisMemory is what the index takes of Redis' memory, in bytes. Defaults are what was
// measured of a redis-server 7.0 with a million blobs (integration/indexcost): each is
// known twice, verified and as its upstream's.
type RedisMemory struct {
	Blob   int64 `json:"blob"`   // of a blob that has one holder
	Holder int64 `json:"holder"` // more for each further one
	Stored int64 `json:"stored"` // more if it is in L2
	Token  int64 `json:"token"`  // of a lease or a claim, for an hour
	Permit int64 `json:"permit"` // of a permission
}

// MeasuredMemory is the default of RedisMemory.
var MeasuredMemory = RedisMemory{Blob: 500, Holder: 28, Stored: 16, Token: 260, Permit: 280}

// Line is what objects are fetched over. Fetches do not slow each other down.
type Line struct {
	Latency time.Duration
	Rate    int64 // bytes a second; 0: no limit
}

// takes returns the nanoseconds that a fetch takes.
func (l Line) takes(size int64) int64 {
	n := int64(l.Latency)
	if l.Rate > 0 {
		n += int64(float64(size) / float64(l.Rate) * 1e9)
	}
	return n
}

// withDefaults returns c with what is not set.
func (c Cluster) withDefaults() Cluster {
	if c.Spread == "" {
		c.Spread = ByClient
	}
	if c.Policy == "" {
		c.Policy = policy.NameLRU
	}
	if c.LeaseTTL <= 0 {
		c.LeaseTTL = 10 * time.Second
	}
	if c.Beat <= 0 {
		c.Beat = 5 * time.Second
	}
	if c.Memory == (RedisMemory{}) {
		c.Memory = MeasuredMemory
	}
	return c
}

// MaxReplicas is the most that are simulated: holders are kept in 16 bits.
const MaxReplicas = 10_000

// check says whether the cluster makes sense.
func (c Cluster) check() error {
	for _, n := range c.Replicas {
		if n < 1 || n > MaxReplicas {
			return fmt.Errorf("a cluster of %d replicas: there must be 1 to %d", n, MaxReplicas)
		}
	}
	known := c.Spread == ""
	for _, s := range Spreads {
		known = known || c.Spread == s
	}
	switch {
	case len(c.Replicas) == 0:
		return nil
	case !known:
		return fmt.Errorf("requests cannot be spread by %q: use one of %v", c.Spread, Spreads)
	case c.L1 == Size{}:
		return errors.New("the replicas of a cluster have no size")
	case !(c.Rate >= 0):
		return errors.New("the rate of a cluster's requests is negative")
	}
	for _, n := range []int64{
		int64(c.Keep), int64(c.PermissionTTL), int64(c.Upstream.Latency), c.Upstream.Rate, int64(c.Peer.Latency), c.Peer.Rate,
		int64(c.Tier.Latency), c.Tier.Rate, c.Memory.Blob, c.Memory.Holder, c.Memory.Stored, c.Memory.Token, c.Memory.Permit,
	} {
		if n < 0 {
			return errors.New("a time, rate or size of a cluster is negative")
		}
	}
	return nil
}

// clusterCells returns two cells for each number of replicas, not simulated yet: without
// sharing and with it.
func clusterCells(d *Decoded, c Cluster) ([]ClusterCell, error) {
	if len(c.Replicas) == 0 {
		return nil, nil
	}
	c = c.withDefaults()
	if _, err := policy.New[uint32](c.Policy); err != nil {
		return nil, err
	}
	disk, err := c.L1.of(d)
	if err != nil {
		return nil, err
	}
	tier := int64(0)
	if c.L2 != (Size{}) {
		if tier, err = c.L2.of(d); err != nil {
			return nil, err
		}
	}
	var out []ClusterCell
	for _, n := range c.Replicas {
		cell := ClusterCell{Replicas: n, Spread: c.Spread, Policy: c.Policy, L1: disk}
		if c.Divide {
			cell.L1 = max(1, disk/int64(n))
		}
		out = append(out, cell)
		cell.Shared, cell.L2 = true, tier
		out = append(out, cell)
	}
	return out, nil
}
