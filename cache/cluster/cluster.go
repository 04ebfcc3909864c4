package cluster

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
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
	away   map[string]time.Time        // peers that were not reached, and until when they are not asked
	wrong  map[digest.Digest]time.Time // blobs that were found wrong, and until when no peer is asked for them
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
		away: make(map[string]time.Time), wrong: make(map[digest.Digest]time.Time),
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

// Fetch returns a blob of at most limit bytes that replicas or the tier have, whole and
// found to have its digest; false if none has. Nothing is fetched from an upstream.
func (c *Cluster) Fetch(ctx context.Context, d digest.Digest, limit int64) ([]byte, bool) {
	b := &body{s: &source{c: c, key: sharedindex.Key{Digest: d}}, ctx: ctx, end: limit}
	defer b.Close()
	text, ok := b.small(limit)
	if !ok || digest.FromBytes(text) != d {
		return nil, false
	}
	return text, true
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

// Mismatched is told of content that was found wrong. The disk of a peer may be what made
// it so, which has to find that out by itself; until then peers are not asked for it.
func (c *Cluster) Mismatched(x *cache.Content) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for d, until := range c.wrong {
		if now.After(until) {
			delete(c.wrong, d)
		}
	}
	c.wrong[x.Descriptor().Digest] = now.Add(wrongFor)
}

// wrongFor is how long peers are not asked for a blob that was found wrong.
const wrongFor = 10 * time.Minute

// doubted reports whether peers are not to be asked for a blob.
func (c *Cluster) doubted(d digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	until, ok := c.wrong[d]
	return ok && time.Now().Before(until)
}

// failed tells of an error in the background.
func (c *Cluster) failed(doing string, err error) {
	if c.cfg.OnError != nil {
		c.cfg.OnError(fmt.Errorf("%s: %w", doing, err))
	}
}
