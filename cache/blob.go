package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/internal/presence"
	"github.com/reprise-containers/reprise/remote/blob"
)

// cached is a blob read through a Cache.
type cached struct {
	c      *Cache
	inner  blob.Blob
	desc   ocispec.Descriptor
	origin string
	e      atomic.Pointer[entry] // nil or dead until a read finds it
}

// Size implements blob.ReaderAt.
func (b *cached) Size() int64 { return b.desc.Size }

// Descriptor implements blob.Blob.
func (b *cached) Descriptor() ocispec.Descriptor { return b.desc }

// ReadAt implements blob.ReaderAt. A read that is not held completely fetches
// the bytes that are missing and no more. An error of the cache's own disk is
// counted and worked around; the error returned is the inner blob's.
func (b *cached) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading blob %s: negative offset %d", b.desc.Digest, off)
	}
	if len(p) == 0 {
		return 0, nil
	}
	rest := b.desc.Size - off
	if rest <= 0 {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > rest {
		p, end = p[:rest], io.EOF
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if !b.hit(p, off) {
		if err := b.miss(ctx, p, off); err != nil {
			return 0, err
		}
	}
	b.c.count.bytesServed.Add(int64(len(p)))
	return len(p), end
}

// hit serves p from the disk if all of it is there: one read, no lock, no
// allocation.
//
// What a concurrent eviction does to the file can't reach the caller: it
// clears the map, then raises gen, and punches its holes only then. So bytes
// that were present at one moment are right if gen is still the same after
// they were read.
func (b *cached) hit(p []byte, off int64) bool {
	e := b.e.Load()
	if e == nil {
		return false
	}
	o := e.now.Load()
	if o == nil {
		return false
	}
	gen := o.gen.Load()
	if !o.held.Has(off, int64(len(p))) {
		return false
	}
	if _, err := o.file.ReadAt(p, off); err != nil || o.gen.Load() != gen {
		return false
	}
	b.c.count.hits.Add(1)
	e.read(off, int64(len(p)))
	return true
}

// read tells the policy that n bytes at off were read from the disk. When it
// is busy it is not told: one of many touches may be lost, a read may not wait.
func (e *entry) read(off, n int64) {
	c := e.c
	e.served()
	if !c.policyMu.TryLock() {
		return
	}
	defer c.policyMu.Unlock()
	for n > 0 {
		k := min(n, presence.Run-off%presence.Run)
		c.policy.Touch(e.unit(off), k)
		off, n = off+k, n-k
	}
}

// served notes when the entry was last served from, to about a second.
func (e *entry) served() {
	if now := e.c.clock.Load(); e.lastUsed.Load() != now {
		e.lastUsed.Store(now)
	}
}

// open returns the open state of the blob, pinned, or nil when the cache can't
// be used now.
func (b *cached) open() *opened {
	for {
		e := b.e.Load()
		if e == nil {
			// With another size one of two descriptors lies, and the cache
			// can't tell which.
			if e = b.c.find(b.origin, b.desc); e == nil || e.desc.Size != b.desc.Size {
				return nil
			}
			b.e.Store(e)
		}
		o, err := e.acquire(false)
		switch {
		case err == nil:
			return o
		case errors.Is(err, errDead):
			b.e.CompareAndSwap(e, nil)
		case errors.Is(err, errRetryLater), errors.Is(err, ErrClosed):
			return nil
		default:
			b.c.failed(fmt.Errorf("opening cached blob %s: %w", b.desc.Digest, err))
			return nil
		}
	}
}

// Present implements blob.Presence. Bytes that are fetched but not yet stored
// count as held.
func (b *cached) Present(off, n int64) bool {
	if off < 0 || n < 0 || off > b.desc.Size || n > b.desc.Size-off {
		return false
	}
	o := b.open()
	if o == nil {
		return false
	}
	defer o.release()
	for end := off + n; off < end; {
		if t := o.waiting(off, end); t != nil && t.off <= off {
			off = t.end()
			continue
		}
		here, until := o.held.Extent(off, end)
		if !here {
			return false
		}
		off = until
	}
	return true
}

// Discard drops the n bytes at off, so that the next read fetches them again. It is for a reader that can tell from a
// checksum of its own that they are damaged.
func (b *cached) Discard(off, n int64) {
	if off < 0 || n <= 0 || off >= b.desc.Size {
		return
	}
	if o := b.open(); o != nil {
		o.discard(off, min(n, b.desc.Size-off))
		o.release()
	}
}
