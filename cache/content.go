package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/internal/disk"
	"github.com/reprise-containers/reprise/cache/internal/presence"
)

// ErrNotHeld says that not all bytes that were asked for are in the cache.
var ErrNotHeld = errors.New("not held by the cache")

// ErrNotStored says that the cache did not take bytes: its disk fails or is
// full, there is no room, or the blob was removed. They are as good as before.
var ErrNotStored = errors.New("not stored in the cache")

// Content is a blob in a cache with WholeBlobs, held open by one user, who sees
// what is there and adds to it. While it is held it is not evicted; if it is
// removed for another reason, its files are gone but its user goes on to read
// what it has. All methods may be called in parallel; Release ends that.
//
// It belongs to an origin until its bytes were found to have its digest
// (MarkVerified, Verify), and from then on to everybody.
type Content struct {
	o        *opened
	released atomic.Bool
}

// Hold returns what the cache has of the blob desc: the verified content if there
// is one, or else what came from origin, or else a new content with nothing in it,
// of which nothing is on disk before something is stored. origin names who is
// trusted to answer with the bytes of the digest and is not empty. The caller
// releases it. It fails when the cache is closed, when its disk does, and when
// the digest is known with another size.
func (c *Cache) Hold(origin string, desc ocispec.Descriptor) (*Content, error) {
	if err := c.checkHold(origin, desc); err != nil {
		return nil, fmt.Errorf("holding blob %s: %w", desc.Digest, err)
	}
	desc = ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
	for {
		e := c.lookup(desc.Digest)
		if e == nil {
			e = c.find(origin, desc)
		}
		if e == nil {
			return nil, ErrClosed
		}
		if e.desc.Size != desc.Size {
			if e.verified.Load() || e.inUse() && !e.empty() {
				return nil, fmt.Errorf("holding blob %s: it is known with %d bytes, not %d", desc.Digest, e.desc.Size, desc.Size)
			}
			// Its origin says something else now. A size that was claimed, and of
			// which nothing came, keeps nobody out.
			if err := e.expel(); err != nil {
				return nil, fmt.Errorf("holding blob %s: %w", desc.Digest, err)
			}
			continue
		}
		x, err := e.hold()
		if !errors.Is(err, errDead) {
			return x, err
		}
	}
}

func (c *Cache) checkHold(origin string, desc ocispec.Descriptor) error {
	switch {
	case !c.cfg.WholeBlobs:
		return errors.New("the cache evicts parts of blobs")
	case origin == "":
		return errors.New("it has no origin")
	case desc.Size <= 0 || desc.Size > presence.MaxSize:
		return fmt.Errorf("a size of %d bytes is not possible", desc.Size)
	}
	return desc.Digest.Validate()
}

func (c *Cache) closed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

// Find is Hold for what is there already, whatever its size: the verified content
// of d, or what there is of it from origin. An empty origin finds what is verified.
func (c *Cache) Find(origin string, d digest.Digest) (*Content, bool) {
	if !c.cfg.WholeBlobs || d.Validate() != nil {
		return nil, false
	}
	for {
		e := c.lookup(d)
		if e == nil && origin != "" {
			e = c.lookup(keyOf(origin, d))
		}
		if e == nil {
			return nil, false
		}
		x, err := e.hold()
		switch {
		case errors.Is(err, errDead):
		case err != nil:
			return nil, false
		case x.o.held.Empty():
			x.Release()
			return nil, false
		default:
			return x, true
		}
	}
}

// hold opens the entry. An error of the disk is counted and told.
func (e *entry) hold() (*Content, error) {
	o, err := e.acquire(false)
	switch {
	case err == nil:
		o.holders.Add(1)
		if o.evicted.Load() {
			o.unhold()
			return nil, errDead
		}
		return &Content{o: o}, nil
	case errors.Is(err, errDead), errors.Is(err, ErrClosed):
		return nil, err
	case !errors.Is(err, errRetryLater):
		e.c.failed(fmt.Errorf("opening cached blob %s: %w", e.desc.Digest, err))
	}
	return nil, fmt.Errorf("holding blob %s: %w", e.desc.Digest, err)
}

// Release ends the use of the content. Doing it again does nothing.
func (x *Content) Release() {
	if x.released.Swap(true) {
		return
	}
	x.o.unhold()
	if x.o.users.Load() == 0 && x.o.held.Empty() {
		x.o.e.idle() // nothing was stored: nothing stays
	}
}

// Clone returns the content held once more, for another user; x is still held.
func (x *Content) Clone() *Content {
	x.o.users.Add(1)
	x.o.holders.Add(1)
	return &Content{o: x.o}
}

// unhold is release for a Content.
func (o *opened) unhold() {
	o.holders.Add(-1)
	o.release()
}

// ID tells this content from any other of the same cache: what is stored under the
// same digest after it was removed has another one.
func (x *Content) ID() uint32 { return x.o.e.id }

// Descriptor describes the blob, with the media type it was first stored with.
func (x *Content) Descriptor() ocispec.Descriptor { return x.o.e.desc }

// Origin returns whom the content came from, nothing once it is verified.
func (x *Content) Origin() string {
	x.o.e.mu.Lock()
	defer x.o.e.mu.Unlock()
	return x.o.e.origin
}

// Verified reports whether the whole content was found to have its digest.
func (x *Content) Verified() bool { return x.o.e.verified.Load() }

// FetchedAt returns when the first byte was stored, the zero time if none was.
func (x *Content) FetchedAt() time.Time {
	x.o.e.mu.Lock()
	defer x.o.e.mu.Unlock()
	return x.o.e.fetchedAt
}

// Complete reports whether all bytes are there.
func (x *Content) Complete() bool { return x.o.held.Has(0, x.o.e.desc.Size) }

// Extent reports whether the byte at off is there and up to where, at most end,
// that holds for all that follow; 0 <= off < end <= size.
func (x *Content) Extent(off, end int64) (held bool, until int64) { return x.o.held.Extent(off, end) }

// ReadAt implements io.ReaderAt for bytes that are there, and counts as a use of
// them. If some are not, or the disk does not return them, it fails with ErrNotHeld.
func (x *Content) ReadAt(p []byte, off int64) (int, error) { return x.readAt(p, off, true) }

// ReadNew is ReadAt of bytes that were fetched for who reads them now. That is no use
// of them again: policies would take everything for wanted twice that was asked for
// once.
func (x *Content) ReadNew(p []byte, off int64) (int, error) { return x.readAt(p, off, false) }

func (x *Content) readAt(p []byte, off int64, again bool) (int, error) {
	o := x.o
	if off < 0 {
		return 0, fmt.Errorf("reading blob %s: negative offset %d", o.e.desc.Digest, off)
	}
	rest := o.e.desc.Size - off
	if rest <= 0 {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > rest {
		p, end = p[:rest], io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	seg := extent{off, off + int64(len(p))}
	if !o.held.Has(off, int64(len(p))) || !o.loadSegment(p, off, seg) {
		return 0, fmt.Errorf("reading blob %s: %d bytes at %d: %w", o.e.desc.Digest, len(p), off, ErrNotHeld)
	}
	o.e.c.count.bytesServed.Add(int64(len(p)))
	if again {
		o.e.read(off, int64(len(p)))
	} else {
		o.e.served()
	}
	return len(p), end
}

// Open returns an own descriptor of the file that the bytes are in, positioned at
// off, for the kernel to send them from. What is not there reads as zeros: the
// caller keeps to what Extent said. It stays good whatever becomes of the content.
// It fails with ErrNotHeld if nothing was stored yet. The caller closes it and says
// with Used what it sent.
func (x *Content) Open(off int64) (*os.File, error) {
	o := x.o
	if o.held.Empty() {
		return nil, fmt.Errorf("opening blob %s: %w", o.e.desc.Digest, ErrNotHeld)
	}
	r, ok := o.file.(disk.Reopener)
	if !ok {
		return nil, fmt.Errorf("opening blob %s: %w", o.e.desc.Digest, errors.ErrUnsupported)
	}
	f, err := r.Reopen()
	if errors.Is(err, fs.ErrClosed) {
		err = ErrNotHeld
	}
	if err == nil && off > 0 {
		_, err = f.Seek(off, io.SeekStart)
		if err != nil {
			f.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("opening blob %s: %w", o.e.desc.Digest, err)
	}
	return f, nil
}

// Used says that n bytes were served by way of Open.
func (x *Content) Used(n int64) {
	if n > 0 {
		x.o.e.c.count.bytesServed.Add(n)
		x.o.e.read(0, min(n, x.o.e.desc.Size))
	}
}

// UsedNew is Used of bytes that ReadNew is for.
func (x *Content) UsedNew(n int64) {
	if n > 0 {
		x.o.e.c.count.bytesServed.Add(n)
		x.o.e.served()
	}
}

// Store puts p at off of the blob, in the caller's time: when it returns nil, p is
// there for all. Bytes that were there already stay as they are. An error wraps
// ErrNotStored; part of p may be there then.
func (x *Content) Store(ctx context.Context, p []byte, off int64) error {
	if off < 0 || int64(len(p)) > x.o.e.desc.Size-off {
		return fmt.Errorf("storing blob %s: %d bytes at %d are not within its %d", x.o.e.desc.Digest, len(p), off, x.o.e.desc.Size)
	}
	for len(p) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(int64(len(p)), presence.Run-off%presence.Run)
		if err := x.o.add(p[:n], off); err != nil {
			return fmt.Errorf("storing blob %s: %w: %w", x.o.e.desc.Digest, ErrNotStored, err)
		}
		p, off = p[n:], off+n
	}
	return nil
}

var (
	errPaused  = errors.New("storing waits for the disk to work again")
	errNoRoom  = errors.New("there is no room")
	errRemoved = errors.New("it was removed")
)

// add stores what is missing of p, which lies in one run, and settles with the disk.
func (o *opened) add(p []byte, off int64) error {
	c := o.e.c
	err := o.addMissing(p, off)
	switch {
	case err == nil:
		if o.undrafted.Load() >= max(draftBytes, o.e.desc.Size/draftPart) {
			o.draft()
		}
		return nil
	case errors.Is(err, errForget):
		o.lose()
	case !errors.Is(err, errPaused) && !errors.Is(err, errNoRoom) && !errors.Is(err, errRemoved):
		c.count.storeErrors.Add(1)
		c.failed(fmt.Errorf("storing blob %s: %w", o.e.desc.Digest, err))
		c.makeRoomOnFullDisk(err)
	}
	c.count.droppedStores.Add(1)
	return err
}

func (o *opened) addMissing(p []byte, off int64) error {
	c := o.e.c
	if c.paused() {
		return errPaused
	}
	need := o.price(&task{o: o, off: off, buf: p})
	// A blob that can't be there as a whole must not drive everything else out
	// before that shows.
	if limit := c.cfg.MaxBytes; limit > 0 && o.e.desc.Size > limit && o.e.cost.Load()+need > limit/2 {
		return errNoRoom
	}
	if !c.reserve(need) {
		return errNoRoom
	}
	defer c.used.Add(-need) // what it really took is charged on top
	o.writing.Lock()
	defer o.writing.Unlock()
	if o.gone {
		return errRemoved
	}
	if o.file == nil {
		if err := o.e.create(o); err != nil {
			return err
		}
	}
	for x, end := off, off+int64(len(p)); x < end; {
		here, until := o.held.Extent(x, end)
		if !here {
			if o.e.verified.Load() {
				return errRemoved // or what p says would pass for verified
			}
			if err := o.write(&task{o: o, off: x, buf: p[x-off : until-off]}); err != nil {
				return err
			}
		}
		x = until
	}
	return nil
}
