package fill

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reprise-containers/reprise/cache"
)

var (
	// ErrMismatch says that what the upstream sent is not what the digest says.
	ErrMismatch = cache.ErrMismatch
	// ErrStopped says that the group's Run has ended.
	ErrStopped = errors.New("fetching was stopped")
)

// Source reads a blob from its upstream, as one caller may.
type Source interface {
	// Open returns bytes [off, off+n) of the blob, by one request. The body has
	// exactly so many, or fails with io.ErrUnexpectedEOF or another error. An
	// error that blob.IsPermanent is not worth another attempt with this
	// source. The request lives on after the caller has gone.
	Open(ctx context.Context, off, n int64) (io.ReadCloser, error)
}

// Extent is the bytes [Off, End) of a blob.
type Extent struct{ Off, End int64 }

// Config configures a Group. The zero value is ready for use.
type Config struct {
	// Rounding is what ends of fetches are rounded to, away from each other, in
	// bytes. 0 fetches what was asked for.
	Rounding int64
	// JoinAhead is how far behind the place a reader wants a fetch may be to be
	// waited for, in bytes; a reader further ahead has its own. 4 MiB if 0.
	JoinAhead int64
	// Complete has blobs of which something was fetched completed in the
	// background, while nobody waits for anything.
	Complete bool
	// Attempts is how often in a row a reader's source may fail without
	// giving a byte; 3 if 0.
	Attempts int
	// Backoff is waited after the first of them, and twice as long after each
	// other; 200 ms if 0.
	Backoff time.Duration
	// OnVerified is told of every content that was found right, when that happens.
	// It must not block, and clones what it keeps. Optional.
	OnVerified func(x *cache.Content)
	// OnMismatch is the same for content that was found wrong.
	OnMismatch func(x *cache.Content)
}

func (c Config) withDefaults() Config {
	if c.JoinAhead == 0 {
		c.JoinAhead = 4 << 20
	}
	if c.Attempts == 0 {
		c.Attempts = 3
	}
	if c.Backoff == 0 {
		c.Backoff = 200 * time.Millisecond
	}
	return c
}

// Stats is a snapshot of what a Group did.
type Stats struct {
	Fetches    int64 // requests to sources
	Fetching   int64 // of these, under way
	Bytes      int64 // that came from sources
	Readers    int64 // open
	Waiting    int64 // of these, waiting for bytes that somebody else fetches
	Joined     int64 // times a reader waited for a fetch of somebody else
	TakenOver  int64 // fetches that went on where another broke
	Broken     int64 // fetches that ended with an error
	Verified   int64 // blobs found right
	Mismatches int64 // blobs found wrong
	Direct     int64 // readers that went past the cache
	Background int64 // bytes of Bytes that nobody waited for
}

type counters struct {
	fetches, fetching, bytes, readers, waiting, joined atomic.Int64
	takenOver, broken, verified, mismatches            atomic.Int64
	direct, background                                 atomic.Int64
}

// Group is everything that is being fetched. Its methods may be called in parallel.
type Group struct {
	cfg     Config
	jobs    chan func(ctx context.Context)
	wants   chan want
	idle    chan want // those for when nothing else is fetched
	stopped chan struct{}
	count   counters

	mu    sync.Mutex
	blobs map[uint32]*filling // by cache.Content.ID
}

// New returns a group that fetches once it runs.
func New(cfg Config) *Group {
	return &Group{
		cfg:     cfg.withDefaults(),
		jobs:    make(chan func(context.Context)),
		wants:   make(chan want, maxWants),
		idle:    make(chan want, maxWants),
		stopped: make(chan struct{}),
		blobs:   make(map[uint32]*filling),
	}
}

// Run fetches until ctx ends, and returns when nothing is under way. Readers then
// fail with ErrStopped where they lack bytes. It is called once.
func (g *Group) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { g.background(ctx, g.wants) })
	wg.Go(func() { g.background(ctx, g.idle) })
	for {
		select {
		case job := <-g.jobs:
			wg.Go(func() { job(ctx) })
		case <-ctx.Done():
			close(g.stopped)
			wg.Wait()
			return nil
		}
	}
}

// start has job run beside the caller.
func (g *Group) start(ctx context.Context, job func(context.Context)) error {
	select {
	case g.jobs <- job:
		return nil
	case <-g.stopped:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stats returns the counters. They are read one by one, not at one moment.
func (g *Group) Stats() Stats {
	n := &g.count
	return Stats{
		Fetches: n.fetches.Load(), Fetching: n.fetching.Load(), Bytes: n.bytes.Load(),
		Readers: n.readers.Load(), Waiting: n.waiting.Load(), Joined: n.joined.Load(),
		TakenOver: n.takenOver.Load(), Broken: n.broken.Load(), Verified: n.verified.Load(),
		Mismatches: n.mismatches.Load(), Direct: n.direct.Load(), Background: n.background.Load(),
	}
}

// open returns what is going on for the content, for one more user.
func (g *Group) open(x *cache.Content) *filling {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.blobs[x.ID()]
	if f == nil {
		f = &filling{g: g, id: x.ID(), size: x.Descriptor().Size, changed: make(chan struct{})}
		g.blobs[f.id] = f
	}
	f.users++
	return f
}

// close ends one use of f.
func (g *Group) close(f *filling) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.users--; f.users == 0 {
		delete(g.blobs, f.id)
	}
}
