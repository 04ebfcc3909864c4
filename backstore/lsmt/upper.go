package lsmt

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/semaphore"
)

// UpperFiles are the files of a writable layer, by absolute paths. They are
// overlaybd's: its configuration has them as "upper".
type UpperFiles struct {
	// Data is the data file.
	Data string
	// Index is the index file. Every writable layer has one; that of a sparse
	// layer is empty.
	Index string
}

// UpperOptions say what CreateUpper makes.
type UpperOptions struct {
	// Identity goes into the headers. Without a UUID the layer gets a random
	// one. A VirtualSize of 0 is for append-only layers only: it is filled in
	// from what lies below, the first time the layer is opened.
	Identity
	// Sparse makes a sparse layer: its data file is as large as the disk and
	// has holes where nothing was written. Without it the layer is append-only.
	Sparse bool
}

// Errors of writable layers.
var (
	// ErrInUse is wrapped by the error for a layer that is open elsewhere.
	ErrInUse = errors.New("writable layer is in use")
	// ErrSealed is wrapped by the error for changes of a sealed layer.
	ErrSealed = errors.New("layer is sealed")
	// ErrClosed is wrapped by the error for every use of a closed layer.
	ErrClosed = errors.New("layer is closed")
	// ErrTooManyRecords is wrapped by the error for an index with more records
	// than a layer that is not writable can have.
	ErrTooManyRecords = errors.New("index has more records than the format allows")
)

// errSegments says that the index in memory is full. The kernel hears ENOSPC.
var errSegments = fmt.Errorf("writable layer has %d segments, more than which the index in memory does not take: %w", MaxSegments, syscall.ENOSPC)

// everyone is all of Upper.gate.
const everyone = math.MaxInt32

// Upper is a writable layer and what lies below it: a device.Writable. It owns
// its files until Close.
//
// A process that dies loses nothing that WriteAt or Discard returned for. When
// the host goes down, an append-only layer opens to the last flush, or what
// came after it where that is known to be whole.
//
// Locks, in this order: gate, the body's own, mu. None is held while the layers
// below are asked, save for the range of a sparse layer that is being written.
type Upper struct {
	// gate is held, 1 of it, by all that changes data, and whole by what needs
	// a still layer. It has room for a context, other than a RWMutex.
	gate *semaphore.Weighted
	// using is held for reading while files are used, and closes them.
	using  sync.RWMutex
	closed bool // guarded by using
	// sealed is set once nothing may be written any more; guarded by gate.
	sealed bool

	disk  atomic.Int64 // virtual size in bytes
	flush flusher

	mu sync.RWMutex
	tier
	body  body
	era   *era // of the reads that start now
	limit int  // of segments

	// below are the bodies of layers that Restack has sealed.
	below []body
}

// body is where an Upper keeps its data: the two kinds of writable layer.
type body interface {
	fmt.Stringer // the path of the data file

	// start makes an opened layer ready to be changed.
	start() error
	// stackable returns an error if the layer can't lie on another.
	stackable() error
	// move makes the body that of u.
	move(u *Upper)
	// write writes p, whole sectors, to off on the disk and publishes it.
	write(ctx context.Context, p []byte, off int64) error
	// discard makes n bytes from off on read as zeros.
	discard(ctx context.Context, off, n int64) error
	// flush makes durable what was published before the call. It is called by
	// one at a time.
	flush() error
	// tidy does what is due after flushes.
	tidy()

	// The rest is called while nothing changes.

	// identity returns what the headers say.
	identity() Identity
	// grow rewrites the headers for a disk of size bytes.
	grow(ctx context.Context, size int64) error
	// layer returns the layer as it is, its data file cut at end.
	layer(entries []entry) *Layer
	// end returns where, in bytes of the data file, an index can be put.
	end() int64
	// flags are those of the trailer of the sealed layer.
	flags() uint32
	// finish says in the files that nobody has them open. All is flushed.
	finish() error
	// close closes the files.
	close() error
	// count adds what the body knows to s.
	count(s *UpperStats)
}

// Size implements device.Device: the size of the disk in bytes, which Grow
// changes.
func (u *Upper) Size() int64 { return u.disk.Load() }

// String names the layer in errors.
func (u *Upper) String() string { return u.current().String() }

// use keeps the files open until done is called.
func (u *Upper) use() (done func(), err error) {
	u.using.RLock()
	if u.closed {
		u.using.RUnlock()
		return nil, ErrClosed
	}
	return u.using.RUnlock, nil
}

// enter is what every change starts with. A still layer, with nobody else in
// it, is had for everyone, else n is 1.
func (u *Upper) enter(ctx context.Context, n int64) (leave func(), err error) {
	if err := u.gate.Acquire(ctx, n); err != nil {
		return nil, err
	}
	done, err := u.use()
	if err == nil && u.sealed {
		done()
		err = ErrSealed
	}
	if err != nil {
		u.gate.Release(n)
		return nil, err
	}
	return func() {
		done()
		u.gate.Release(n)
	}, nil
}

// WriteAt implements device.Writable.
func (u *Upper) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	leave, err := u.enter(ctx, 1)
	if err != nil {
		return 0, fmt.Errorf("writing layer: %w", err)
	}
	defer leave()
	if err := u.checkRange(off, int64(len(p))); err != nil {
		return 0, fmt.Errorf("writing layer: %w", err)
	}
	for done := 0; done < len(p); {
		n := min(len(p)-done, maxWrite)
		if err := u.body.write(ctx, p[done:done+n], off+int64(done)); err != nil {
			return done, fmt.Errorf("writing layer: %w", err)
		}
		done += n
	}
	return len(p), nil
}

// maxWrite is the length in bytes at which writes are cut, as overlaybd does.
const maxWrite = 4 << 20

// Discard implements device.Writable.
func (u *Upper) Discard(ctx context.Context, off, n int64) error {
	leave, err := u.enter(ctx, 1)
	if err != nil {
		return fmt.Errorf("discarding: %w", err)
	}
	defer leave()
	if err := u.checkRange(off, n); err != nil {
		return fmt.Errorf("discarding: %w", err)
	}
	if err := u.body.discard(ctx, off, n); err != nil {
		return fmt.Errorf("discarding: %w", err)
	}
	return nil
}

// checkRange checks a request's range.
func (u *Upper) checkRange(off, n int64) error {
	if off < 0 || n < 0 || off%SectorSize != 0 || n%SectorSize != 0 {
		return fmt.Errorf("%d bytes at %d are not whole sectors: %w", n, off, syscall.EINVAL)
	}
	if size := u.Size(); off > size || n > size-off {
		return fmt.Errorf("%d bytes at %d reach past the end of the disk at %d: %w", n, off, size, syscall.EINVAL)
	}
	return nil
}

// Flush implements device.Writable: data first, then the index. Calls that
// arrive while one is at work share the next one. Once it has failed, nobody
// knows what of the data written before is on the disk, and asking the kernel
// again would be answered with a success that means nothing: so every later
// Flush fails, too, until the layer is opened again.
func (u *Upper) Flush(ctx context.Context) error {
	done, err := u.use()
	if err != nil {
		return fmt.Errorf("flushing layer: %w", err)
	}
	defer done()
	if err := u.flushAll(ctx); err != nil {
		return fmt.Errorf("flushing layer: %w", err)
	}
	return nil
}

func (u *Upper) flushAll(ctx context.Context) error {
	b := u.current()
	err := u.flush.do(ctx, func() error { return u.current().flush() })
	b.tidy()
	return err
}

// current returns the body that takes what is written now.
func (u *Upper) current() body {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.body
}

// full reports whether the index in memory can't take another segment.
func (u *Upper) full() bool {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.index.n+2 > u.limit // a change adds two at most
}

// Close flushes and closes the layer, after all reads and changes at work and
// the release of snapshots. A second call does nothing.
func (u *Upper) Close() error {
	u.using.Lock()
	defer u.using.Unlock()
	if u.closed {
		return nil
	}
	u.closed = true
	var err error
	if !u.sealed {
		if err = u.flush.alone(u.body.flush); err == nil {
			err = u.body.finish()
		}
	}
	err = errors.Join(err, u.body.close())
	for _, b := range u.below {
		err = errors.Join(err, b.close())
	}
	if err != nil {
		return fmt.Errorf("closing layer: %w", err)
	}
	return nil
}

// UpperStats is a snapshot of what a writable layer holds and costs.
type UpperStats struct {
	Sparse   bool
	Segments int   // live ones, of the index
	Live     int64 // bytes of data that the index refers to
	Data     int64 // bytes that the data file takes on the disk, 0 if it does not say
	Dead     int64 // bytes of the data file that nothing refers to, and that are not freed yet
	Records  int64 // in the index log, all kinds
	Dropped  int64 // records that opening ignored, after a crash
	Flushes  int64 // that reached the disk; more calls of Flush may have shared them
	Freed    int64 // bytes of dead data that were freed since opening
}

// Stats returns what the layer holds at the moment; nothing once it is closed.
func (u *Upper) Stats() UpperStats {
	done, err := u.use()
	if err != nil {
		return UpperStats{}
	}
	defer done()
	u.mu.RLock()
	b := u.body
	s := UpperStats{Segments: u.index.n, Live: int64(u.index.stored) * SectorSize, Flushes: u.flush.count.Load()}
	u.mu.RUnlock()
	b.count(&s)
	return s
}
