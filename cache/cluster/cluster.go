package cluster

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cluster/peer"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/cluster/tier"
	"github.com/reprise-containers/reprise/cache/fill"
)

// Config says what is shared. Index, Tier or both are set.
type Config struct {
	// Self is host:port where peers reach this replica, and its name in the index.
	Self string
	// Index is nil if there is none; then there are no peers either.
	Index *sharedindex.Index
	// Peers asks other replicas.
	Peers *peer.Client
	// Tier is nil if there is none.
	Tier *tier.Tier
	// LeaseTTL is that of the index. 10 s if 0.
	LeaseTTL time.Duration
	// Remember is how long the index knows of what it is not asked for; 0: for days.
	Remember time.Duration
	// Writers is how many blobs are written to the tier at a time; 2 if 0.
	Writers int
	// Sweep is what the tier is kept to.
	Sweep tier.SweepConfig
	// Status is told to the other replicas; JSON. Optional.
	Status func() []byte
	// Secret is the cluster's: announcements carry a MAC made with it.
	Secret []byte
	// Position is a file that remembers up to where announcements were followed.
	Position string
	// OnAnnouncement is told what another replica announced. missed says that there
	// may have been others before that are lost. Optional.
	OnAnnouncement func(ctx context.Context, payload []byte, missed bool)
	// OnError is told of what went wrong in the background. Optional.
	OnError func(error)
}

// Cluster is a replica's part in what is shared. Its methods may be called in parallel.
type Cluster struct {
	cfg   Config
	cache *cache.Cache
	fill  *fill.Group
	count counters
	// announcing is the key of the MACs of announcements.
	announcing []byte
	// forgotten says that the index may have lost what it was told.
	forgotten atomic.Bool
	queue     chan job // verified, and not told or written back yet

	mu     sync.Mutex
	leases map[sharedindex.Key]map[*lease]struct{} // that this replica holds
	claims map[*claim]struct{}
	away   map[string]time.Time          // peers that were not reached, and until when they are not asked
	given  map[sharedindex.Key]time.Time // blobs of which peers gave something, and when
	wrong  map[sharedindex.Key]time.Time // those that were found wrong then
}

// maxQueue is how many blobs may wait to be told and written back. Those that come on
// top are found by the next one who wants them at the replica that fetched them, or not.
const maxQueue = 4096

// New returns the part of a replica in a cluster, which shares what is in c. It works
// while it runs.
func New(cfg Config, c *cache.Cache) (*Cluster, error) {
	if cfg.LeaseTTL == 0 {
		cfg.LeaseTTL = 10 * time.Second
	}
	if cfg.Writers == 0 {
		cfg.Writers = 2
	}
	key, err := hkdf.Key(sha256.New, cfg.Secret, nil, "reprise announcements v1", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("deriving the key of announcements: %w", err)
	}
	return &Cluster{
		cfg: cfg, cache: c, announcing: key, queue: make(chan job, maxQueue),
		leases: make(map[sharedindex.Key]map[*lease]struct{}), claims: make(map[*claim]struct{}),
		away: make(map[string]time.Time), given: make(map[sharedindex.Key]time.Time), wrong: make(map[sharedindex.Key]time.Time),
	}, nil
}

// Serve has peers given what g fetches. It is called before anything is served, as g
// needs to know the cluster first (fill.Config.OnVerified).
func (c *Cluster) Serve(g *fill.Group) { c.fill = g }

// Run renews leases, writes back, tells others and is told by them, until ctx ends.
func (c *Cluster) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.renew(ctx) })
	for range c.cfg.Writers {
		g.Go(func() error { return c.write(ctx) })
	}
	if c.cfg.Tier != nil {
		g.Go(func() error { return c.sweep(ctx) })
	}
	if c.cfg.Index != nil {
		g.Go(func() error { return c.cfg.Index.Run(ctx) })
		g.Go(func() error { return c.beat(ctx) })
		g.Go(func() error { return c.follow(ctx) })
		g.Go(func() error { return c.remind(ctx) })
	}
	return g.Wait()
}

// Source returns a source of the blob desc, whose size is known: from other replicas
// and the tier where they have it, and from up where not.
func (c *Cluster) Source(origin string, desc ocispec.Descriptor, up fill.Source) fill.Source {
	return &source{c: c, key: sharedindex.Key{Origin: origin, Digest: desc.Digest}, size: desc.Size, up: up}
}

// Verified is told of content that was found right. It is told to the others, and
// written to the tier, in the background.
func (c *Cluster) Verified(x *cache.Content) {
	select {
	case c.queue <- job{digest: x.Descriptor().Digest}:
	default:
		c.count.dropped.Add(1)
	}
}

// failed tells of an error in the background.
func (c *Cluster) failed(doing string, err error) {
	if c.cfg.OnError != nil {
		c.cfg.OnError(fmt.Errorf("%s: %w", doing, err))
	}
}
