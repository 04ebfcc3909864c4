package fill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/pause"
)

// tail is what a reader of a whole blob gets only when the blob is verified, in
// bytes.
const tail = 64 << 10

// sendBelow is from how many bytes on it is worth to have the kernel send a file.
const sendBelow = 64 << 10

// copyPiece is how much is copied at a time where that can't be done. A client that
// is slow holds so much memory.
const copyPiece = 64 << 10

var copies = sync.Pool{New: func() any { return new([copyPiece]byte) }}

// sendPiece is how much it is asked to send at a time, in bytes: whoever is given it
// may want to know that the client takes some now and then.
const sendPiece = 512 << 10

// Reader reads some bytes of a blob, from the cache and from those who fetch them.
// It is for one goroutine.
type Reader struct {
	g   *Group
	f   *filling
	x   *cache.Content
	src Source
	ctx context.Context //nolint:containedctx // of the client's request, whose answer this is

	start    int64
	pos, end int64
	had      int64  // up to here it was there when the reader began
	whole    bool   // the last bytes wait for the verdict
	quiet    bool   // nobody waits for it
	distrust bool   // its file can't be sent from
	follows  *fetch // of another's, the last it waited for; under filling.mu
	hopes    int    // filling.despair when it began to wait, plus one; under filling.mu
	refused  bool   // the cache did not take what a fetch of its own brought; under filling.mu
	asked    int64  // where the last fetch that was begun for it began, plus one
	file     *os.File
	straight *direct

	mu     sync.Mutex
	gone   bool  // closed: nobody to tell
	err    error // of the last fetch that was begun for it
	failed int   // such errors in a row
	rest   *rest // what that fetch could not store
}

// Reader returns a reader of the n bytes at off of the content's blob, which the
// caller goes on to hold until it has closed the reader. What is missing is fetched
// from src, or by others. It starts nothing before it is read. Errors wrap
// ErrMismatch if the blob is not what its digest says, cancellation of ctx, or what
// src said last.
func (g *Group) Reader(ctx context.Context, x *cache.Content, src Source, off, n int64) *Reader {
	g.count.readers.Add(1)
	size := x.Descriptor().Size
	end := min(off+n, size)
	had := off
	if off < end {
		if held, until := x.Extent(off, end); held {
			had = until
		}
	}
	return &Reader{
		g: g, f: g.open(x), x: x, src: src, ctx: ctx,
		start: off, pos: off, end: end, had: had, whole: off == 0 && end == size,
	}
}

// again reports whether what is read now counts as a use: it was there before, or
// others have it fetched.
func (r *Reader) again() bool { return r.pos < r.had || r.asked == 0 }

// Close ends the reader. What is being fetched for it goes on.
func (r *Reader) Close() error {
	r.mu.Lock()
	gone, failed := r.gone, r.failed > 0
	r.gone = true
	r.mu.Unlock()
	if gone {
		return nil
	}
	r.g.count.readers.Add(-1)
	if r.g.cfg.Complete && !r.quiet && !failed && r.pos > r.start {
		r.g.complete(r)
	}
	r.g.close(r.f)
	if r.straight != nil {
		r.straight.close()
	}
	if t := r.given(); t != nil {
		t.close()
	}
	if r.file != nil {
		return r.file.Close()
	}
	return nil
}

// fail tells the reader how a fetch of its own ended, and whether it brought
// anything. It is the only one told.
func (r *Reader) fail(err error, broken, came bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if came || err == nil {
		r.err, r.failed = nil, 0
	}
	if broken {
		r.err = err
		r.failed++
	}
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if r.pos >= r.end {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.ready(int64(len(p)))
	if err != nil {
		return 0, err
	}
	if r.straight != nil {
		return r.readStraight(p)
	}
	read := r.x.ReadNew
	if r.again() {
		read = r.x.ReadAt
	}
	got, err := read(p[:n], r.pos)
	if got == int(n) {
		r.pos += n
		return got, nil
	}
	if !errors.Is(err, cache.ErrNotHeld) {
		return 0, err
	}
	// The disk did not return it, so it is missing now, or else the cache has
	// nothing to read from any more.
	if held, until := r.x.Extent(r.pos, r.pos+n); held && until == r.pos+n {
		r.goStraight()
	}
	return r.Read(p)
}

// WriteTo implements io.WriterTo: what is in the cache goes from its file to w
// without a detour, if w is an io.ReaderFrom, which gets at most sendPiece at a time.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	start := r.pos
	to, _ := w.(io.ReaderFrom)
	var buf *[copyPiece]byte
	defer func() {
		if buf != nil {
			copies.Put(buf)
		}
	}()
	for r.pos < r.end {
		n, err := r.ready(r.end - r.pos)
		if err != nil {
			return r.pos - start, err
		}
		if to != nil && n >= sendBelow && r.straight == nil && !r.distrust {
			if sent, err := r.send(to, min(n, sendPiece)); sent > 0 || err != nil {
				if err != nil {
					return r.pos - start, err
				}
				continue
			}
		}
		if buf == nil {
			buf = copies.Get().(*[copyPiece]byte)
		}
		got, err := r.Read(buf[:min(n, copyPiece)])
		if err != nil {
			return r.pos - start, err
		}
		if _, err := w.Write(buf[:got]); err != nil {
			return r.pos - start - int64(got), fmt.Errorf("writing to the client: %w", err)
		}
	}
	return r.pos - start, nil
}

// send sends n bytes that are in the cache from its file. It returns 0 and no error
// if that can't be done.
func (r *Reader) send(w io.ReaderFrom, n int64) (int64, error) {
	if r.file == nil {
		f, err := r.x.Open(r.pos)
		if err != nil {
			return 0, nil
		}
		r.file = f
	} else if _, err := r.file.Seek(r.pos, io.SeekStart); err != nil {
		return 0, nil
	}
	sent, err := w.ReadFrom(io.LimitReader(r.file, n))
	if r.again() {
		r.x.Used(sent)
	} else {
		r.x.UsedNew(sent)
	}
	r.pos += sent
	if sent == n {
		return sent, nil
	}
	// It is the file, of which the cache learns when it reads it, or the client.
	var one [1]byte
	if _, at := r.x.ReadAt(one[:], r.pos); errors.Is(at, cache.ErrNotHeld) {
		r.distrust = true
		return sent, nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return sent, fmt.Errorf("sending blob %s: at %d: %w", r.x.Descriptor().Digest, r.pos, err)
}

// ready waits until something of the next n bytes can be read, and returns how many.
func (r *Reader) ready(n int64) (int64, error) {
	for r.straight == nil {
		if err := r.denied(); err != nil {
			return 0, err
		}
		end := r.pos + n
		if r.whole && !r.verified() {
			if end = min(end, r.f.size-tail); r.pos >= end {
				return r.last(n)
			}
		}
		done, err := r.step(r.pos, end, r.end)
		if err != nil {
			return 0, err
		}
		if done > 0 && r.resumes() && r.pos+done == r.end && r.x.Complete() && !r.verified() {
			if err := r.verdict(); err != nil {
				return 0, err
			}
			continue
		}
		if done > 0 {
			return done, nil
		}
	}
	return n, nil
}

// resumes reports whether the reader wants the rest of a blob, as a client does
// whose first answer was broken off. It does not wait for bytes that it did not ask
// for; but if the blob is all there when the last of it is due, it gets that only if
// the blob is right. Otherwise who resumes behind a lie would have the whole of it.
func (r *Reader) resumes() bool { return !r.whole && !r.quiet && r.end == r.f.size }

// denied returns why the reader may not go on: its request has ended, or its source
// said something for good, such as that its credentials do not do. Then it is not
// served with what others were given either.
func (r *Reader) denied() error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed > 0 && blob.IsPermanent(r.err) {
		return r.err
	}
	return nil
}

// last waits for the verdict on the whole blob, of which the last bytes are next.
func (r *Reader) last(n int64) (int64, error) {
	for !r.verified() && r.straight == nil {
		if err := r.denied(); err != nil {
			return 0, err
		}
		// The first missing byte of the whole, if there is one.
		held, until := r.x.Extent(0, r.f.size)
		if held && until == r.f.size {
			if err := r.verdict(); err != nil {
				return 0, err
			}
			continue
		}
		from := int64(0)
		if held {
			from = until
		}
		if _, err := r.step(from, r.f.size, r.f.size); err != nil {
			return 0, err
		}
	}
	return min(n, r.end-r.pos), nil
}

// verdict has the blob verified, all of which is there, or waits for who does that.
func (r *Reader) verdict() error {
	r.f.mu.Lock()
	wrong, busy, changed := r.f.wrong, r.f.verifying || len(r.f.fetches) > 0, r.f.changed
	r.f.mu.Unlock()
	switch {
	case wrong:
		return r.mismatch()
	case busy:
		return r.wait(changed)
	}
	r.f.verify(r.ctx, r.x)
	if r.verified() {
		return nil
	}
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	if r.f.wrong {
		return r.mismatch()
	}
	if err := r.ctx.Err(); err != nil || r.f.verifying {
		return err
	}
	r.goStraight() // the cache lost it
	return nil
}

// goStraight has the rest come straight from the reader's source.
func (r *Reader) goStraight() {
	r.g.count.direct.Add(1)
	r.straight = &direct{r: r}
}

// verified reports whether the blob was found to be what its digest says.
func (r *Reader) verified() bool {
	if r.x.Verified() {
		return true
	}
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return r.f.right
}

func (r *Reader) mismatch() error {
	return fmt.Errorf("reading blob %s: %w", r.x.Descriptor().Digest, ErrMismatch)
}

// step looks at off, and returns how many bytes from there to end are in the cache.
// If there are none, it waits for somebody who fetches them, for a reader that wants
// all up to limit, or begins a fetch.
func (r *Reader) step(off, end, limit int64) (int64, error) {
	at := r.f.look(r, off, limit)
	switch {
	case at.wrong:
		return 0, r.mismatch()
	case at.held > 0:
		return min(at.held, end-off), nil
	case at.direct:
		r.goStraight()
		return 0, nil
	case at.err != nil:
		return 0, at.err
	case at.wait != nil:
		return 0, r.wait(at.wait)
	}
	return 0, r.begin(at.fetch, off)
}

func (r *Reader) wait(changed <-chan struct{}) error {
	r.g.count.waiting.Add(1)
	defer r.g.count.waiting.Add(-1)
	select {
	case <-changed:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	case <-r.g.stopped:
		return ErrStopped
	}
}

// begin starts a fetch, unless the reader's own source failed too often.
func (r *Reader) begin(t *fetch, off int64) error {
	failed, err := r.patience()
	if err == nil && !failed && r.asked == off+1 {
		// It came and the cache did not keep it: there is a limit to the
		// number of ranges in a block.
		r.goStraight()
		r.f.ended(t, false, false)
		t.x.Release()
		return nil
	}
	r.asked = off + 1
	if err == nil {
		r.g.open(r.x) // for the fetch
		if err = r.g.start(r.ctx, t.run); err != nil {
			r.g.close(r.f)
		}
	}
	if err != nil {
		r.f.ended(t, false, false)
		t.x.Release()
	}
	return err
}

// patience waits before another attempt after one that failed, of the reader's or of
// those it waited for, or returns why there is none. It reports whether one had failed.
func (r *Reader) patience() (failed bool, err error) {
	r.mu.Lock()
	err, mine := r.err, r.failed
	r.mu.Unlock()
	times := max(mine, r.f.failures())
	switch {
	case times == 0:
		return false, nil
	case mine >= r.g.cfg.Attempts:
		return true, err
	}
	return true, r.backOff(times)
}

// backOff waits after so many failures in a row.
func (r *Reader) backOff(times int) error {
	if !pause.For(r.ctx, r.g.cfg.Backoff<<(times-1)) {
		return r.ctx.Err()
	}
	return nil
}
