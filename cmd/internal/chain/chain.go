// Package chain states, once and for all programs, the order in which the
// decorators of a blob are put around each other.
//
// Outermost first, below the formats (lsmt, zfile, tar):
//
//		Use -> Observe("cache") -> cache -> Coalesce -> Retry -> Observe("verified") -> Verify ->
//		Stage -> Observe("origin") -> Observe(host) -> Line -> Limit -> registry
//
//	  - Use is at the top: it notes what is read of what was prefetched, which
//	    mostly is cached.
//	  - Cache is above Coalesce: the cache asks for what it lacks, so equal
//	    needs are equal reads.
//	  - Coalesce is above Retry and Verify: a failing range is retried once, not
//	    once for each reader that waits for it.
//	  - Retry is above Verify: wrong bytes are a failure like others, and may be
//	    right when another host can be asked.
//	  - Verify is below Cache: what is not what the manifest says is never
//	    stored. Its table is a part of the same blob and is read from the top,
//	    so that it is cached, joined and retried like all else. Verify holds no
//	    connection meanwhile; and what lies behind the bytes that it covers
//	    passes it without a look at the table, so it never waits for itself.
//	  - Stage is below Verify, because what is staged comes from whoever made a
//	    trace layer, and above Observe("origin"), because it is no request. Only
//	    blobs that are verified have one. A read that waits for what is staged
//	    next is not under way at the host, so it does not hold that up.
//	  - Observe("origin") is below Retry and Verify: every request counts, the
//	    failed too, and those for the table. So is that of the host, which
//	    notes when a request ended that somebody waited for: Quiet tells from
//	    that, and from who waits at Limit, whether the host is idle.
//	  - Line is above Limit: a read that waits for a connection waits for the
//	    line, and prefetch leaves that to it.
//	  - Limit is next to the registry: a read that waits between two tries, or
//	    that joined another one, holds no connection. Background reads are
//	    throttled here by priority, never between Cache and Coalesce: a demand
//	    read that joins a background read would wait for the latter's budget.
//
// # What the cache shares
//
// A range can't be compared with the digest of its blob. A blob is therefore
// cached by digest and registry: what one registry answers is never given to the
// image of another. Mirrors of a registry answer in its name.
//
// A table does not change that. Who makes a manifest can state a table of his
// own for anybody's digest, and which table a layer is read with need not be the
// word of the image that reads it: containerd shares a layer's snapshot among
// all images whose configs state its chain ID, and the snapshot has the table
// that the first of them stated. If verified bytes were shared by all
// registries, an image from one of them could put its own bytes below an image
// from another one.
//
// Within a registry, the key has the table, too: the digest of its root, where
// it lies and the blob's size. So what nothing verified, or another table let
// pass, is never given to who verifies. That is a second copy of a blob that is
// read with and without its table, which no two images do that were made by the
// same converter. The table and the zeros behind it are in the same entry,
// unverified; who reads the table verifies it and has it forgotten if it is
// wrong.
//
// A table that a referrer of the image has is trusted because the operator says
// so (Config.VerifyReferrers), and is a blob of its own. What is verified with
// it is kept for its root like everything else.
//
// With verification off, a blob is cached as if it had no table.
package chain

import (
	"context"
	"fmt"
	"io"
	"sync"
	"weak"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/tracelayer/replay"
)

// Config says how blobs are read.
type Config struct {
	Retry blob.RetryConfig
	Limit blob.LimitConfig // of one registry host
	// Cache holds what was fetched; nil means that nothing is kept.
	Cache *cache.Cache
	// CacheReads and OriginReads are told about the reads above the cache
	// and about the requests to registries; nil means nobody is.
	CacheReads, OriginReads blob.Observer
	// VerifiedReads is told about reads of verified blobs that were not
	// cached, VerifyFailures about every chunk that was wrong; nil means
	// nobody is.
	VerifiedReads  blob.Observer
	VerifyFailures chunks.Observer
	// Verify says what is verified, VerifyHosts the same for hosts
	// ("host:port" as in references) for which something else holds.
	Verify      Policy
	VerifyHosts map[string]Policy
	// VerifyReferrers takes chunk tables, for blobs that name none, from
	// artifacts that refer to the image's manifest. They lie outside of what
	// the manifest's digest covers.
	VerifyReferrers bool
	// Prefetch is told what replays do and are good for; nil means nobody is.
	Prefetch replay.Observer
	// PrefetchBudget is how many bytes the cache can hold: all replays at a time
	// fetch a part of that at most. 0 is no limit.
	PrefetchBudget int64
}

// Chain opens blobs of registries. Equal blobs opened while one of them is in
// use are one, so that images with a common base share fetches in flight.
type Chain struct {
	registry *registry.Client
	cfg      Config

	mu    sync.Mutex
	hosts map[string]*host
	open  map[key]weak.Pointer[shared]
	lists map[subject]*list // of tables that referrers have

	replays map[replayKey]*replaying
	budget  budget // of replays
}

// key has size and chunk table, because a manifest that lies about them must not
// decide what another one of the same repository gets.
type key struct {
	repository string
	digest     digest.Digest
	size       int64
	table      chunks.Ref
	manifest   digest.Digest // whose referrers are asked for a table
}

// shared is the identity of an open blob; the blob lives as long as it.
type shared struct {
	blob.Blob
	use *replay.Use // is Blob
	// stage returns the place to stage bytes in, nil if nothing above it
	// would verify them. It may ask the registry which of both holds.
	stage func(ctx context.Context) (*blob.Stage, error)
}

// New returns a Chain over client.
func New(client *registry.Client, cfg Config) *Chain {
	return &Chain{
		registry: client,
		cfg:      cfg,
		hosts:    make(map[string]*host),
		open:     make(map[key]weak.Pointer[shared]),
		lists:    make(map[subject]*list),
		replays:  make(map[replayKey]*replaying),
		budget:   budget{cache: cfg.PrefetchBudget},
	}
}

// Open returns the blob desc of the repository of ref, verified if the
// annotations of desc name a chunk table. It asks the registry for nothing: an
// unreachable one is noticed by the first read. An error that is
// errdefs.ErrFailedPrecondition says that policy refuses the blob.
func (c *Chain) Open(ref string, desc ocispec.Descriptor) (blob.Blob, error) {
	b, err := c.openShared(ref, desc)
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (c *Chain) openShared(ref string, desc ocispec.Descriptor) (*shared, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fmt.Errorf("parsing reference %q: %w", ref, err)
	}
	host := reference.Domain(named)
	table, err := c.table(host, desc)
	if err != nil {
		return nil, fmt.Errorf("opening a blob of %s: %w", named, err)
	}
	k := key{repository: named.Name(), digest: desc.Digest, size: desc.Size, table: table}
	if table.IsZero() {
		if k.manifest = c.manifest(host, desc); k.manifest == "" {
			if err := c.admit(host, desc); err != nil {
				return nil, fmt.Errorf("opening a blob of %s: %w", named, err)
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.open[k].Value(); b != nil {
		return b, nil
	}
	origin, err := c.registry.Open(ref, desc)
	if err != nil {
		return nil, err
	}
	b := &shared{}
	var stage *blob.Stage
	b.stage = func(context.Context) (*blob.Stage, error) { return stage, nil }
	switch {
	case k.manifest != "":
		r := newReferred(c, origin, ref, host, k.manifest)
		b.Blob, b.stage = r, r.stage
	case table.IsZero():
		b.Blob = c.plain(origin, host)
	default:
		above := &top{size: desc.Size}
		b.Blob, stage = c.verified(origin, host, table, blob.Section(above, table.Offset, table.Size))
		above.Blob = b.Blob
	}
	b.use = replay.NewUse(b.Blob)
	b.Blob = b.use
	c.open[k] = weak.Make(b)
	for old, p := range c.open {
		if p.Value() == nil {
			delete(c.open, old)
		}
	}
	return b, nil
}

// plain returns b as it is read without verification. The caller holds mu.
func (c *Chain) plain(b blob.Blob, host string) blob.Blob {
	return c.decorate(b, host, chunks.Ref{}, nil)
}

// verified returns b as it is read with a table, whose bytes are in content, and
// its stage. The caller holds mu.
func (c *Chain) verified(b blob.Blob, host string, table chunks.Ref, content blob.ReaderAt) (blob.Blob, *blob.Stage) {
	var stage *blob.Stage
	b = c.decorate(b, host, table, func(b blob.Blob) blob.Blob {
		stage = blob.NewStage(b, fromTrace)
		return chunks.Verify(stage, table, content, c.cfg.VerifyFailures)
	})
	return b, stage
}

// decorate is the order. See the package comment before changing it.
// The caller holds mu.
func (c *Chain) decorate(b blob.Blob, name string, table chunks.Ref, verify func(blob.Blob) blob.Blob) blob.Blob {
	h := c.host(name)
	b = blob.Observe(h.line.Watch(h.limit.Limit(b)), h)
	if c.cfg.OriginReads != nil {
		b = blob.Observe(b, c.cfg.OriginReads)
	}
	if verify != nil {
		b = verify(b)
		if c.cfg.VerifiedReads != nil {
			b = blob.Observe(b, c.cfg.VerifiedReads)
		}
	}
	b = blob.Retry(b, c.cfg.Retry)
	b = blob.Coalesce(b)
	if c.cfg.Cache != nil {
		b = c.store(b, name, table)
	}
	if c.cfg.CacheReads != nil {
		b = blob.Observe(b, c.cfg.CacheReads)
	}
	return b
}

// Present implements blob.Presence.
func (s *shared) Present(off, n int64) bool { return blob.Present(s.Blob, off, n) }

// Discard implements blob.Discarder.
func (s *shared) Discard(off, n int64) { blob.Discard(s.Blob, off, n) }

// Resolve returns the descriptor that ref names.
func (c *Chain) Resolve(ctx context.Context, ref string) (ocispec.Descriptor, error) {
	return c.registry.Resolve(ctx, ref)
}

// Fetch returns the content of desc from the repository of ref, verified when
// it was read to its end. It is for manifests and configurations.
func (c *Chain) Fetch(ctx context.Context, ref string, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return c.registry.Fetch(ctx, ref, desc)
}
