package cluster

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/cluster/peer"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/cluster/tier"
	"github.com/reprise-containers/reprise/cache/fill"
	"github.com/reprise-containers/reprise/remote/blob/pause"
)

// source is a blob, from wherever it is to be had.
type source struct {
	c    *Cluster
	key  sharedindex.Key
	size int64
	up   fill.Source
}

// Open implements fill.Source.
func (s *source) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if n < 0 || off+n > s.size {
		n = s.size - off
	}
	b := &body{s: s, ctx: ctx, pos: off, end: off + n, limit: off + n}
	if err := b.next(); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// body is bytes [pos, end) of a blob, segment by segment. It is for one goroutine, but
// for Close.
type body struct {
	s        *source
	ctx      context.Context //nolint:containedctx // of the fetch
	pos, end int64

	tries  int    // since a byte came
	limit  int64  // where somebody else has something again, as far as is known
	insist bool   // those who have the next byte were asked in vain
	over   uint64 // the token of a lease whose holder fails
	stuck  uint64 // the token of a lease under which nothing came for long
	noTier bool   // it failed

	mu     sync.Mutex // as it may be closed while it is read
	closed bool
	part   *part
	leases []*lease // under which something of it was fetched
}

// part is one segment.
type part struct {
	io.ReadCloser
	end   int64
	kind  kind
	token uint64 // of a peer's lease, under which it fetches the segment
	lease *lease // under which it is fetched, nil: none
}

// kind is where a segment is from.
type kind int

const (
	fromPeer kind = iota
	fromTier
	fromUpstream
	kinds
)

const (
	// maxTries is how often in a row it is asked elsewhere before the upstream is
	// asked whatever the others do.
	maxTries = 8
	// tryAgain is waited while another replica holds a lease and is not reached.
	tryAgain = time.Second
	// idleTries and idlePause are how often, and how long at first, it is waited for a
	// lease to be used.
	idleTries = 7
	idlePause = 10 * time.Millisecond
)

// errClosed is the error of a body that was closed while it was read.
var errClosed = errors.New("the fetch was ended")

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	for b.pos < b.end {
		x, err := b.current()
		if err != nil {
			return 0, err
		}
		if x == nil {
			if err := b.next(); err != nil {
				return 0, err
			}
			continue
		}
		n, err := b.read(x, p)
		if n > 0 {
			b.pos += int64(n)
			b.tries, b.insist, b.limit = 0, false, b.end
		}
		if b.pos == x.end || err != nil {
			err = b.ended(x, err)
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.EOF
}

// current returns the segment that is read; nil: none is open.
func (b *body) current() (*part, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosed
	}
	return b.part, nil
}

// read reads from the segment.
func (b *body) read(x *part, p []byte) (int, error) {
	if x.lease != nil {
		if err := x.lease.check(b.ctx); err != nil {
			return 0, err
		}
	}
	n, err := x.Read(p[:min(int64(len(p)), x.end-b.pos)])
	b.s.c.count.bytes[x.kind].Add(int64(n))
	// It may have taken so long that the lease is another's.
	if x.lease != nil && x.lease.check(b.ctx) != nil {
		return 0, errFenced
	}
	return n, err
}

// ended closes the segment, which ended with err, nil if that was its end, and returns
// what the reader has to know of it.
func (b *body) ended(x *part, err error) error {
	b.mu.Lock()
	b.part = nil
	b.mu.Unlock()
	x.Close()
	if x.lease != nil {
		x.lease.reads(nil)
	}
	switch {
	case b.ctx.Err() != nil:
		return b.ctx.Err()
	case errors.Is(err, errFenced): // another one goes on, and is followed
	case x.kind == fromUpstream:
		if errors.Is(err, io.EOF) && b.pos < x.end {
			return io.ErrUnexpectedEOF
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	case x.kind == fromTier && err != nil && !errors.Is(err, io.EOF):
		b.noTier = true
		b.s.c.count.failed[fromTier].Add(1)
	case x.kind == fromPeer && b.pos < x.end && x.token != 0:
		// It ended early: whose lease it was fetches no more. Or it is stuck, which its
		// upstream may be for a while.
		if !errors.Is(err, peer.ErrStalled) || b.stuck == x.token {
			b.over = x.token
		}
		b.stuck = x.token
		b.s.c.count.failed[fromPeer].Add(1)
	}
	return nil
}

// Close implements io.Closer. The leases end here and not with their segments: what was
// read last is stored only after that.
func (b *body) Close() error {
	b.mu.Lock()
	x, leases := b.part, b.leases
	b.part, b.leases, b.closed = nil, nil, true
	b.mu.Unlock()
	var err error
	if x != nil {
		err = x.Close()
	}
	for _, l := range leases {
		l.end(b.ctx)
	}
	return err
}

// next opens the segment at pos.
func (b *body) next() error {
	for {
		if err := b.ctx.Err(); err != nil {
			return err
		}
		if x, err := b.current(); x != nil || err != nil {
			return err
		}
		b.tries++
		if err := b.choose(); err != nil {
			return err
		}
	}
}

// choose tries to open the segment at pos. It is to be tried again if there is none and
// no error.
func (b *body) choose() error {
	c := b.s.c
	if c.cfg.Index == nil {
		return b.alone()
	}
	if b.tries > maxTries {
		return b.upstream(nil, b.end)
	}
	at, doubted := time.Now(), c.doubted(b.s.key)
	place, err := c.cfg.Index.Locate(b.ctx, sharedindex.Wanted{
		Key: b.s.key, Extent: sharedindex.Extent{Off: b.pos, End: b.limit}, Insist: b.insist || doubted, Over: b.over,
	})
	if err != nil {
		c.count.alone.Add(1)
		return b.alone()
	}
	b.over = 0
	switch f := place.Fetching; {
	case place.Lease != nil:
		return b.lead(place.Lease, at)
	case f != nil && f.Replica == c.cfg.Self:
		if c.coming(b.s.key, b.pos) == nil {
			// It is left of an earlier life of this replica, or of an answer that was
			// lost.
			return b.idle(f.Token)
		}
		// Somebody here does, and is so far behind that it is not waited for.
		return b.upstream(nil, min(b.end, f.End))
	case f != nil && doubted:
		return b.upstream(nil, min(b.end, f.End))
	case f != nil:
		return b.join(f)
	case b.insist, doubted: // too much of it is being fetched already
		return b.upstream(nil, b.end)
	}
	b.elsewhere(place)
	return nil
}

// join follows who fetches the segment.
func (b *body) join(f *sharedindex.Fetching) error {
	err := b.peer(f.Replica, min(b.end, f.End), f.Token)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, peer.ErrNothing), errors.Is(err, peer.ErrNotThere):
		return b.idle(f.Token) // it was started anew
	case isRefused(err):
		b.over = f.Token // it is gone
		return nil
	}
	if !pause.For(b.ctx, tryAgain) { // until its lease ends
		return b.ctx.Err()
	}
	return nil
}

// idle is for a lease under which its holder fetches nothing. It may have been granted
// just now, so it is looked at some times before it is taken over.
func (b *body) idle(token uint64) error {
	if b.tries >= idleTries {
		b.over = token
		return nil
	}
	if !pause.For(b.ctx, idlePause<<b.tries) {
		return b.ctx.Err()
	}
	return nil
}

// elsewhere tries those who have some of the blob, then the tier.
func (b *body) elsewhere(at sharedindex.Place) {
	b.insist = true
	for _, replica := range at.Holders {
		err := b.peer(replica, b.end, 0)
		if err == nil {
			return
		}
		if e, ok := errors.AsType[*peer.NotThereError](err); ok && e.Next > b.pos {
			b.limit = min(b.limit, e.Next)
		}
	}
	if o := at.Stored; o != nil {
		b.tier(tier.Object{Generation: o.Generation, Size: o.Size}, b.end, nil)
	}
}

// peer opens the segment at a replica that has it, or fetches it under the lease of the
// token.
func (b *body) peer(replica string, end int64, token uint64) error {
	c := b.s.c
	if err := c.reachable(replica); err != nil {
		return err
	}
	a, err := c.cfg.Peers.Open(b.ctx, replica, peer.Request{Origin: b.s.key.Origin, Digest: b.s.key.Digest, Off: b.pos, End: end})
	if err != nil {
		// Who has just begun to fetch has nothing yet; the index may know that it has
		// before the next question.
		if token == 0 || !errors.Is(err, peer.ErrNothing) {
			c.missed(b.ctx, b.s.key, replica, err)
		}
		return err
	}
	if a.Size != b.s.size { // which an upstream may have claimed
		a.Close()
		return peer.ErrNothing
	}
	c.believed(b.s.key)
	return b.open(&part{ReadCloser: a, end: end, kind: fromPeer, token: token})
}

// tier opens the segment in the tier, and reports whether it could. l is the lease
// under which that is, nil for none.
func (b *body) tier(o tier.Object, end int64, l *lease) bool {
	c := b.s.c
	if c.cfg.Tier == nil || b.noTier || o.Size != b.s.size {
		return false
	}
	r, err := c.openStored(b.ctx, b.s.key.Digest, o, b.pos, end-b.pos)
	if err != nil {
		b.noTier = true
		return false
	}
	return b.open(&part{ReadCloser: r, end: end, kind: fromTier, lease: l}) == nil
}

// openStored opens n bytes at off of an object of the tier. That it is damaged or gone is
// taken note of, now or when it is read.
func (c *Cluster) openStored(ctx context.Context, d digest.Digest, o tier.Object, off, n int64) (io.ReadCloser, error) {
	lost := func(err error) { c.lost(ctx, d, o, err) }
	r, err := c.cfg.Tier.Open(ctx, d, o, off, n)
	if err != nil {
		lost(err)
		return nil, err
	}
	return &watched{r, lost}, nil
}

// watched tells of what reading fails with.
type watched struct {
	io.ReadCloser
	failed func(error)
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.failed(err)
	}
	return n, err
}

// lead fetches the segment from the upstream, under a lease, unless the tier has it,
// which the index may have forgotten.
func (b *body) lead(granted *sharedindex.Lease, at time.Time) error {
	c := b.s.c
	x, err := c.cache.Hold(b.s.key.Origin, ocispec.Descriptor{Digest: b.s.key.Digest, Size: b.s.size})
	if err != nil { // others can not be given what comes
		_ = c.cfg.Index.Release(b.ctx, b.s.key, granted.Token, false)
		return b.upstream(nil, granted.End)
	}
	l := c.lead(b.s.key, granted, x, at)
	if !b.keep(l) {
		l.end(b.ctx)
		return errClosed
	}
	if granted.End-granted.Off >= worthFinding && b.find(l.extent.End, l) {
		return nil
	}
	return b.upstream(l, l.extent.End)
}

// worthFinding is from how many bytes on the list of the tier is looked at before an
// upstream is asked, where the index knows of no object.
const worthFinding = 1 << 20

// find opens the segment in the tier by its list, and reports whether it could.
func (b *body) find(end int64, l *lease) bool {
	c := b.s.c
	if c.cfg.Tier == nil || b.noTier {
		return false
	}
	o, found, err := c.cfg.Tier.Find(b.ctx, b.s.key.Digest)
	if err != nil || !found {
		b.noTier = err != nil
		return false
	}
	return b.tier(o, end, l)
}

// alone opens the segment without the index.
func (b *body) alone() error {
	if b.find(b.end, nil) {
		return nil
	}
	return b.upstream(nil, b.end)
}

// upstream opens the segment at the upstream.
func (b *body) upstream(l *lease, end int64) error {
	r, err := b.s.up.Open(b.ctx, b.pos, end-b.pos)
	if err != nil {
		return err
	}
	if l != nil {
		l.reads(r)
	}
	return b.open(&part{ReadCloser: r, end: end, kind: fromUpstream, lease: l})
}

// open has the segment read next, unless the body was closed.
func (b *body) open(x *part) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		x.Close()
		return errClosed
	}
	b.part = x
	b.s.c.count.segments[x.kind].Add(1)
	return nil
}

// keep has a lease last until the body is closed; it reports false if that is so.
func (b *body) keep(l *lease) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.leases = append(b.leases, l)
	return true
}
