package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/internal/presence"
)

// ErrMismatch says that the bytes of a blob do not have its digest.
var ErrMismatch = errors.New("content does not match its digest")

const (
	quarantineDir = "quarantine"
	// What is kept in quarantine for somebody to look at: so many blobs, none
	// of which has more than 1/quarantineShare of the space there is.
	quarantineFiles = 4
	quarantineShare = 64
)

// MarkVerified says that the caller has found the bytes that it stored, which are
// all there are, to have the digest. From now on the content belongs to the digest
// and to no origin, unless it was removed meanwhile. That is durable after the next
// checkpoint; a crash before that costs the content.
func (x *Content) MarkVerified() error {
	if err := x.o.promote(time.Now().UTC()); err != nil {
		return fmt.Errorf("marking blob %s as verified: %w", x.o.e.desc.Digest, err)
	}
	return nil
}

// Verify reads the content, which must be complete, and compares its digest. If it
// is the right one the content is marked as verified, again if it was. If not, the
// content is dropped and quarantined and the error wraps ErrMismatch. throttle, if
// not nil, is asked before n more bytes are read.
func (x *Content) Verify(ctx context.Context, throttle func(ctx context.Context, n int) error) error {
	o := x.o
	if !x.Complete() {
		return fmt.Errorf("verifying blob %s: %w", o.e.desc.Digest, ErrNotHeld)
	}
	v := o.e.desc.Digest.Verifier()
	buf := make([]byte, min(presence.Run, o.e.desc.Size))
	for off := int64(0); off < o.e.desc.Size; {
		p := buf[:min(int64(len(buf)), o.e.desc.Size-off)]
		if throttle != nil {
			if err := throttle(ctx, len(p)); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := o.file.ReadAt(p, off); errors.Is(err, fs.ErrClosed) {
			return fmt.Errorf("verifying blob %s: %w", o.e.desc.Digest, ErrClosed)
		} else if err != nil {
			// As good as damaged: nobody can have it.
			o.e.c.count.readErrors.Add(1)
			return errors.Join(fmt.Errorf("verifying blob %s: %w", o.e.desc.Digest, err), x.Drop(false))
		}
		_, _ = v.Write(p)
		off += int64(len(p))
	}
	if !v.Verified() {
		return errors.Join(fmt.Errorf("verifying blob %s: %w", o.e.desc.Digest, ErrMismatch), x.Drop(true))
	}
	return x.MarkVerified()
}

// promote gives the content to its digest: at once in memory, on disk by settle.
func (o *opened) promote(now time.Time) error {
	e, c := o.e, o.e.c
	if other := c.lookup(e.desc.Digest); other != nil && other != e {
		// It came from somebody else too. One of them is enough, and this one
		// goes when its users do.
		return e.expel()
	}
	o.writing.Lock()
	defer o.writing.Unlock()
	if o.gone {
		return nil // removed meanwhile; who holds it has the right bytes
	}
	if !o.held.Has(0, e.desc.Size) {
		return ErrNotHeld
	}
	e.persisting.Lock()
	defer e.persisting.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.now.Load() != o {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if other := c.blobs[e.desc.Digest]; other != nil && other != e {
		return nil // the other one was a moment earlier; ours stays its origin's
	}
	c.blobs[e.desc.Digest] = e
	e.key, e.origin = e.desc.Digest, ""
	e.verifiedAt, e.inode, e.metadata = now, o.inode, false
	e.verified.Store(true)
	o.dirty.Store(true)
	return nil
}

// Drop removes the content from the cache, durably; who holds it goes on to read
// it. With quarantine its bytes are kept aside, within limits, for somebody to
// look at.
func (x *Content) Drop(quarantine bool) error {
	e := x.o.e
	e.c.count.discards.Add(1)
	if quarantine {
		e.quarantine()
	}
	e.mu.Lock()
	dir, known := e.path().dir, e.known
	e.mu.Unlock()
	err := e.expel()
	if err == nil && known {
		err = e.c.fs.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("dropping blob %s: %w", e.desc.Digest, err)
	}
	return nil
}

// quarantine moves the data file aside if there is room for it. An error costs
// nothing but that.
func (e *entry) quarantine() {
	c := e.c
	if c.cfg.MaxBytes > 0 && e.desc.Size > c.cfg.MaxBytes/quarantineShare || c.fs.MkdirAll(quarantineDir) != nil {
		return
	}
	c.evicting.Lock() // nothing else goes meanwhile
	defer c.evicting.Unlock()
	defer c.countQuarantine()
	names, err := c.fs.ReadDir(quarantineDir)
	if err != nil {
		return
	}
	// The names begin with the time.
	slices.Sort(names)
	for len(names) >= quarantineFiles {
		_ = c.fs.Remove(path.Join(quarantineDir, names[0]))
		names = names[1:]
	}
	e.persisting.Lock()
	defer e.persisting.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dead || !e.known {
		return // what lies there is another's
	}
	name := strconv.FormatInt(time.Now().UnixNano(), 10) + "-" + e.desc.Digest.Encoded()
	_ = c.fs.Rename(e.path().data, path.Join(quarantineDir, name))
}

// countQuarantine accounts for what lies in quarantine; c.evicting is held, or c not
// yet shared.
func (c *Cache) countQuarantine() {
	names, err := c.fs.ReadDir(quarantineDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return
	}
	var bytes int64
	for _, name := range names {
		if info, err := c.fs.Stat(path.Join(quarantineDir, name)); err == nil {
			bytes += info.Allocated
		}
	}
	c.used.Add(bytes - c.quarantined)
	c.quarantined = bytes
}

// nameOf returns the key of the files whose names begin with base in the folder
// of alg and shard, and false if it is not a name of ours.
func nameOf(alg, dir, base string) (digest.Digest, bool) {
	key := digest.NewDigestFromEncoded(digest.Algorithm(alg), base)
	return key, key.Validate() == nil && pathOf(key).dir == dir
}
