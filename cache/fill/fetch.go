package fill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/remote/blob"
)

// piece is how much of an answer is stored at a time at most, in bytes.
const piece = 256 << 10

var pieces = sync.Pool{New: func() any { return new([piece]byte) }}

// skipHeld is how many bytes that are in the cache already make it worth to end a
// fetch and begin another one behind them.
const skipHeld = 4 << 20

// run is what a fetch does, beside everybody.
func (t *fetch) run(ctx context.Context) {
	f := t.f
	defer f.g.close(f)
	defer t.x.Release()
	f.g.count.fetches.Add(1)
	f.g.count.fetching.Add(1)
	whole, err := t.receive(ctx)
	f.g.count.fetching.Add(-1)
	if err != nil && ctx.Err() != nil {
		err = ErrStopped
	}
	refused := errors.Is(err, cache.ErrNotStored)
	broken := err != nil && !refused && !errors.Is(err, errSkip)
	if broken {
		f.g.count.broken.Add(1)
	}
	if err == nil && whole != nil && t.alone() {
		t.judge(whole.Verified())
	}
	came := t.came()
	if broken && !came && !blob.IsPermanent(err) && ctx.Err() == nil {
		f.failing(err)
	}
	t.owner.fail(err, broken, came)
	f.ended(t, broken, refused)
	if err == nil {
		f.verify(ctx, t.x)
	}
}

// errSkip ends a fetch that came to bytes that are in the cache already.
var errSkip = errors.New("what follows is in the cache")

// receive stores what the source sends. If that was the whole of a blob of which
// nothing was there before, it returns what has seen all of it.
func (t *fetch) receive(ctx context.Context) (digest.Verifier, error) {
	var whole digest.Verifier
	if held, until := t.x.Extent(0, t.f.size); t.Extent == (Extent{0, t.f.size}) && !held && until == t.f.size {
		whole = t.x.Descriptor().Digest.Verifier()
	}
	body, err := t.src.Open(ctx, t.Off, t.End-t.Off)
	if err != nil {
		return nil, err
	}
	buf := pieces.Get().(*[piece]byte)
	handed := false
	defer func() {
		if !handed {
			body.Close()
			pieces.Put(buf)
		}
	}()
	defer context.AfterFunc(ctx, func() { body.Close() })()
	for pos := t.Off; pos < t.End; {
		p := buf[:min(piece, t.End-pos)]
		n, err := io.ReadAtLeast(body, p, min(len(p), minPiece(pos-t.Off)))
		if n > 0 {
			t.f.g.count.bytes.Add(int64(n))
			if t.owner.quiet {
				t.f.g.count.background.Add(int64(n))
			}
			if err := t.x.Store(ctx, buf[:n], pos); err != nil {
				handed = errors.Is(err, cache.ErrNotStored) && t.owner.take(&rest{off: pos, buf: buf, n: n, body: body})
				return nil, err
			}
			if whole != nil {
				_, _ = whole.Write(buf[:n])
			}
			pos += int64(n)
			t.f.arrived(t, pos)
		}
		if pos == t.End {
			break
		}
		if err != nil {
			return nil, t.brokeOff(pos, err)
		}
		if whole == nil && t.skips(pos) {
			return nil, errSkip
		}
	}
	return whole, nil
}

// brokeOff says that the answer ended before pos was the end, with err.
func (t *fetch) brokeOff(pos int64, err error) error {
	if err == io.EOF { //nolint:errorlint // as io.Reader has it
		return fmt.Errorf("fetching blob %s: the answer ended at %d of %d: %w", t.x.Descriptor().Digest, pos, t.End, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("fetching blob %s at %d: %w", t.x.Descriptor().Digest, pos, err)
}

// enough is how many bytes an answer must bring so that the source does not count as
// one that fails although it broke off. Less would never come to an end.
const enough = 64 << 10

// came reports whether the fetch brought something worth its request.
func (t *fetch) came() bool {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	return t.pos-t.Off >= enough
}

// alone reports whether all that is stored of the extent are the bytes that t was
// sent. Whoever else had some of them to fetch may have stored its own first.
func (t *fetch) alone() bool {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	return !t.mixed
}

// minPiece returns how much is collected before it is stored and all who wait are
// woken, after so many bytes: what a network gives at a time is little, and the first
// ones are waited for most.
func minPiece(came int64) int {
	if came < 64<<10 {
		return 1
	}
	return 128 << 10
}

// skips reports whether much of what follows is in the cache.
func (t *fetch) skips(pos int64) bool {
	if t.End-pos < skipHeld {
		return false
	}
	held, until := t.x.Extent(pos, pos+skipHeld)
	return held && until == pos+skipHeld
}

// judge marks the content as verified, or as wrong.
func (t *fetch) judge(right bool) {
	if right {
		t.f.verdict(t.x, t.x.MarkVerified())
		return
	}
	err := fmt.Errorf("fetching blob %s: %w", t.x.Descriptor().Digest, ErrMismatch)
	_ = t.x.Drop(true) // an error is counted by the cache
	t.f.verdict(t.x, err)
}

// verify has the content verified by reading it, if all of it is there and nobody
// has done that or is about to.
func (f *filling) verify(ctx context.Context, x *cache.Content) {
	f.mu.Lock()
	if f.verifying || f.wrong || f.right || x.Verified() || !x.Complete() {
		f.mu.Unlock()
		return
	}
	f.verifying = true
	f.mu.Unlock()
	err := x.Verify(ctx, nil)
	f.mu.Lock()
	f.verifying = false
	f.mu.Unlock()
	f.verdict(x, err)
}

// verdict takes note of what a verification has found.
func (f *filling) verdict(x *cache.Content, err error) {
	switch told := f.g.cfg; {
	case err == nil && told.OnVerified != nil:
		told.OnVerified(x)
	case errors.Is(err, ErrMismatch) && told.OnMismatch != nil:
		told.OnMismatch(x)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.right = true
		f.g.count.verified.Add(1)
	case errors.Is(err, ErrMismatch):
		f.wrong = true
		f.g.count.mismatches.Add(1)
	}
	f.wake()
}
