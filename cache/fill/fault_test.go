package fill_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/fill"
	"github.com/reprise-containers/reprise/remote/blob"
)

// quick makes retries that take no time.
var quick = fill.Config{Backoff: time.Millisecond}

var errCut = errors.New("connection reset")

// cutAt returns a hook that breaks the first body that comes to off.
func cutAt(off int64, err error) func(context.Context, *openedBody) error {
	var done atomic.Bool
	return func(_ context.Context, o *openedBody) error {
		if o.pos >= off && done.CompareAndSwap(false, true) {
			return err
		}
		return nil
	}
}

// TestCut breaks the fetch at offsets of all kinds, in all the ways it can end
// early. It goes on where it was, with a reader that still waits.
func TestCut(t *testing.T) {
	const size = 1<<20 + 333
	data := random(size, 10)
	for _, off := range []int64{0, 1, 32 << 10, 64 << 10, 256 << 10, 300_000, size - 64<<10, size - 5, size} {
		for _, how := range []error{errCut, io.EOF, io.ErrUnexpectedEOF} {
			if off == size && how == io.EOF { //nolint:errorlint // one of the list
				continue // that is how a body ends
			}
			t.Run(fmt.Sprintf("%d %v", off, how), func(t *testing.T) {
				r := newRig(t, quick, cache.Config{})
				up := newUpstream(data)
				up.hook = cutAt(off, how)
				var group errgroup.Group
				for i := range 8 {
					group.Go(func() error { return r.check(t.Context(), data, up.by(fmt.Sprint(i)), 0, size) })
				}
				if err := group.Wait(); err != nil {
					t.Fatal(err)
				}
				if up.bytes() != size {
					t.Errorf("%d bytes were sent of %d", up.bytes(), size)
				}
				if n := len(up.requests()); n > 2 {
					t.Errorf("%d requests: %v", n, up.requests())
				}
				r.settle(data)
			})
		}
	}
}

// TestCutAgain has a source that ends every answer early: one that gives something
// every time is no source that fails.
func TestCutAgain(t *testing.T) {
	data := random(2<<20, 11)
	r := newRig(t, quick, cache.Config{})
	up := newUpstream(data)
	up.hook = func(_ context.Context, o *openedBody) error {
		if o.pos-o.off >= 100_000 {
			return errCut
		}
		return nil
	}
	if err := r.check(t.Context(), data, up.by("a"), 0, int64(len(data))); err != nil {
		t.Fatal(err)
	}
	up.cheap(t, int64(len(data)))
}

// TestDrip has a source that gives one byte with every answer, which comes to no end.
func TestDrip(t *testing.T) {
	for _, room := range []int64{0, 16 << 10} {
		t.Run(fmt.Sprint(room), func(t *testing.T) { drip(t, room) })
	}
}

func drip(t *testing.T, room int64) {
	data := random(1<<20, 24)
	r := newRig(t, quick, cache.Config{MaxBytes: room})
	up := newUpstream(data)
	up.hook = func(_ context.Context, o *openedBody) error {
		if o.pos > o.off {
			return errCut
		}
		return nil
	}
	src := &dripSource{up.by("a")}
	var group errgroup.Group
	for range 5 {
		group.Go(func() error {
			if got, err := r.read(t.Context(), describe(data), data, src, 0, int64(len(data))); !errors.Is(err, errCut) {
				return fmt.Errorf("%d bytes and %w", got, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	if n := len(up.requests()); n > 5*2*3 {
		t.Errorf("%d requests", n)
	}
}

type dripSource struct{ *caller }

func (s *dripSource) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	b, err := s.caller.Open(ctx, off, n)
	if err != nil {
		return nil, err
	}
	return &dripBody{b}, nil
}

type dripBody struct{ io.ReadCloser }

func (b *dripBody) Read(p []byte) (int, error) { return b.ReadCloser.Read(p[:min(1, len(p))]) }

// TestLeaderLeaves ends the request of the reader whose fetch it is, when some of
// it came and others wait.
func TestLeaderLeaves(t *testing.T) {
	for _, followers := range []int{0, 5} {
		t.Run(fmt.Sprintf("%d follow", followers), func(t *testing.T) { leaderLeaves(t, followers) })
	}
}

func leaderLeaves(t *testing.T, followers int) {
	data := random(2<<20, 12)
	r := newRig(t, quick, cache.Config{})
	up := newUpstream(data)
	left := make(chan struct{})
	up.hook = func(ctx context.Context, o *openedBody) error {
		if o.pos < 1<<20 {
			return nil
		}
		select {
		case <-left:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group, leader errgroup.Group
	leader.Go(func() error { return r.check(ctx, data, up.by("leader"), 0, int64(len(data))) })
	eventually(t, "the fetch begins", func() bool { return up.bytes() >= 1<<20 })
	for i := range followers {
		group.Go(func() error { return r.check(t.Context(), data, up.by(fmt.Sprint(i)), 0, int64(len(data))) })
	}
	eventually(t, "followers wait", func() bool { return r.group.Stats().Waiting >= int64(followers) })
	cancel()
	if err := leader.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("the one who left got %v", err)
	}
	close(left)
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	r.settle(data)
	if n := len(up.requests()); n != 1 || up.bytes() != int64(len(data)) {
		t.Errorf("%d requests and %d bytes for %d", n, up.bytes(), len(data))
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("it never came that %s", what)
}

// refusal is what an upstream answers to one who has no right.
func refusal(status int) error { return blob.Permanent(fmt.Errorf("upstream answers %d", status)) }

// TestLeaderRefused refuses the leader's credentials: at once, or when its fetch
// broke and is resumed. That is its own affair, and it gets nothing of what the
// others are sent.
func TestLeaderRefused(t *testing.T) {
	data := random(2<<20, 13)
	t.Run("first", func(t *testing.T) {
		r := newRig(t, quick, cache.Config{})
		up := newUpstream(data)
		refused := refusal(401)
		entered, goOn := make(chan struct{}), make(chan struct{})
		leader := up.refusing("leader", nil)
		leader.fails = func(int64, int64) error {
			close(entered)
			<-goOn
			return refused
		}
		var group errgroup.Group
		var got int64
		var leaderErr error
		group.Go(func() error {
			got, leaderErr = r.read(t.Context(), describe(data), data, leader, 0, int64(len(data)))
			return nil
		})
		<-entered
		for i := range 5 {
			group.Go(func() error { return r.check(t.Context(), data, up.by(fmt.Sprint(i)), 0, int64(len(data))) })
		}
		eventually(t, "followers wait", func() bool { return r.group.Stats().Waiting >= 6 })
		close(goOn)
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(leaderErr, refused) || got > 0 {
			t.Errorf("who was refused got %d bytes and error %v", got, leaderErr)
		}
		up.cheap(t, int64(len(data)))
		if n := len(up.requests()); n != 2 {
			t.Errorf("%d requests, want that of the leader and one", n)
		}
		r.settle(data)
	})
	t.Run("resuming", func(t *testing.T) {
		r := newRig(t, quick, cache.Config{})
		up := newUpstream(data)
		ready := make(chan struct{})
		cut := cutAt(1<<20, errCut)
		up.hook = func(ctx context.Context, o *openedBody) error {
			if o.pos >= 1<<20 {
				<-ready
			}
			return cut(ctx, o)
		}
		src := func(name string) *caller {
			c := up.by(name)
			c.fails = func(off, _ int64) error {
				if off > 0 && name != "good" {
					return refusal(403)
				}
				return nil
			}
			return c
		}
		var group errgroup.Group
		failed := make([]error, 4)
		for i := range failed {
			group.Go(func() error {
				failed[i] = r.check(t.Context(), data, src(fmt.Sprint(i)), 0, int64(len(data)))
				return nil
			})
		}
		eventually(t, "the fetch begins", func() bool { return up.bytes() >= 1<<20 })
		group.Go(func() error { return r.check(t.Context(), data, src("good"), 0, int64(len(data))) })
		eventually(t, "all wait", func() bool { return r.group.Stats().Waiting >= 5 })
		close(ready)
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		up.cheap(t, int64(len(data)))
		r.settle(data)
	})
}

// TestAllRefused has nobody who may: everybody gets the error of its own source.
func TestAllRefused(t *testing.T) {
	data := random(1<<20, 14)
	r := newRig(t, quick, cache.Config{})
	up := newUpstream(data)
	var group errgroup.Group
	for i := range 20 {
		group.Go(func() error {
			mine := refusal(400 + i)
			got, err := r.read(t.Context(), describe(data), data, up.refusing(fmt.Sprint(i), mine), 0, int64(len(data)))
			if !errors.Is(err, mine) || got > 0 {
				return fmt.Errorf("reader %d got %d bytes and %w", i, got, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := len(up.requests()); n != 20 {
		t.Errorf("%d requests of 20 who are refused", n)
	}
}

// TestDeadUpstream has an upstream that answers nobody. It is asked a few times, not
// a few times by everyone.
func TestDeadUpstream(t *testing.T) {
	const readers = 50
	data := random(1<<20, 15)
	r := newRig(t, quick, cache.Config{})
	up := newUpstream(data)
	gone := errors.New("no route to host")
	var group errgroup.Group
	for i := range readers {
		group.Go(func() error {
			_, err := r.read(t.Context(), describe(data), data, up.refusing(fmt.Sprint(i), gone), 0, int64(len(data)))
			if !errors.Is(err, gone) {
				return fmt.Errorf("reader %d got %w", i, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := len(up.requests()); n > readers {
		t.Errorf("%d requests of %d readers", n, readers)
	}
	// And when it is back, all is well.
	if err := r.check(t.Context(), data, up.by("later"), 0, int64(len(data))); err != nil {
		t.Error(err)
	}
}

// TestLies has upstreams that send something else under a digest. No reader ever has
// all of it, whatever part of it is wrong, and nothing of it stays.
func TestLies(t *testing.T) {
	for _, size := range []int{1, 1000, 64 << 10, 64<<10 + 1, 1 << 20} {
		for _, at := range []int{0, size / 2, size - 1} {
			t.Run(fmt.Sprintf("%d of %d", at, size), func(t *testing.T) {
				data := random(size, 16)
				lie := slices.Clone(data)
				lie[at] ^= 1
				r := newRig(t, quick, cache.Config{})
				up := newUpstream(lie)
				var group errgroup.Group
				for i := range 10 {
					group.Go(func() error {
						got, err := r.read(t.Context(), describe(data), lie, up.by(fmt.Sprint(i)), 0, int64(size))
						if !errors.Is(err, fill.ErrMismatch) || got > max(0, int64(size)-64<<10) {
							return fmt.Errorf("reader %d got %d of %d bytes and error %w", i, got, size, err)
						}
						return nil
					})
				}
				if err := group.Wait(); err != nil {
					t.Fatal(err)
				}
				r.unverified(describe(data))
				honest := newUpstream(data)
				if err := r.check(t.Context(), data, honest.by("later"), 0, int64(size)); err != nil {
					t.Error(err)
				}
				honest.cheap(t, int64(size))
				r.settle(data)
			})
		}
	}
}

// TestLieAhead has a range far ahead of a running fetch come from one who lies, and
// the rest from one who does not: what was hashed must be what is stored.
func TestLieAhead(t *testing.T) {
	for name, config := range map[string]fill.Config{
		"exact":   {},
		"rounded": {JoinAhead: 1 << 20, Rounding: 64 << 10},
	} {
		t.Run(name, func(t *testing.T) { lieAhead(t, config) })
	}
}

func lieAhead(t *testing.T, config fill.Config) {
	const size, from, n = 16 << 20, 12 << 20, 100_000
	data := random(size, 17)
	lie := slices.Clone(data)
	for i := from; i < from+n; i++ {
		lie[i] ^= 0x55
	}
	r := newRig(t, config, cache.Config{})
	honest, liar := newUpstream(data), newUpstream(lie)
	lied := make(chan struct{})
	honest.hook = func(ctx context.Context, o *openedBody) error {
		if o.pos < 1<<20 {
			return nil
		}
		select {
		case <-lied:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	type result struct {
		got int64
		err error
	}
	whole := make(chan result)
	go func() {
		got, err := r.read(t.Context(), describe(data), lie, honest.by("whole"), 0, size)
		whole <- result{got, err}
	}()
	eventually(t, "the fetch begins", func() bool { return honest.bytes() >= 1<<20 })
	got, err := r.read(t.Context(), describe(data), lie, liar.by("range"), from, n)
	if err != nil || got != n {
		t.Fatalf("a range ahead: %d bytes, %v", got, err)
	}
	close(lied)
	// It was sent some of the lie, or all of the truth; never all of the lie.
	if res := <-whole; res.err == nil || res.got == size {
		t.Errorf("the whole: %d bytes, %v", res.got, res.err)
	}
	eventually(t, "there is a verdict", func() bool {
		n := r.group.Stats()
		return n.Fetching == 0 && n.Verified+n.Mismatches > 0
	})
	if x, ok := r.cache.Find("", describe(data).Digest); ok {
		defer x.Release()
		got := make([]byte, size)
		if n, _ := x.ReadAt(got, 0); n != size || !bytes.Equal(got, data) {
			t.Error("a wrong content is verified")
		}
	}
}

// TestLieBefore has a part of a blob come from one who lies, long before.
func TestLieBefore(t *testing.T) {
	data := random(1<<20, 18)
	lie := slices.Clone(data)
	lie[1000] ^= 1
	r := newRig(t, quick, cache.Config{})
	honest, liar := newUpstream(data), newUpstream(lie)
	if got, err := r.read(t.Context(), describe(data), lie, liar.by("range"), 900, 200); err != nil || got != 200 {
		t.Fatalf("a range: %d bytes, %v", got, err)
	}
	if _, err := r.read(t.Context(), describe(data), lie, honest.by("whole"), 0, int64(len(data))); !errors.Is(err, fill.ErrMismatch) {
		t.Errorf("the whole: %v", err)
	}
	r.unverified(describe(data))
	if err := r.check(t.Context(), data, honest.by("again"), 0, int64(len(data))); err != nil {
		t.Error(err)
	}
	r.settle(data)
}

// TestTooLong has a source that sends more than it was asked for.
func TestTooLong(t *testing.T) {
	data := random(300_000, 19)
	r := newRig(t, quick, cache.Config{})
	up := newUpstream(append(slices.Clone(data), random(300_000, 20)...))
	src := &longSource{up.by("a")}
	for _, e := range []fill.Extent{{Off: 100, End: 1000}, {Off: 0, End: int64(len(data))}} {
		if err := r.check(t.Context(), data, src, e.Off, e.End-e.Off); err != nil {
			t.Error(err)
		}
	}
	r.settle(data)
}

type longSource struct{ *caller }

func (s *longSource) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	return s.caller.Open(ctx, off, n+1000)
}

// TestStall has a fetch that stops coming until its source gives it up.
func TestStall(t *testing.T) {
	data := random(1<<20, 21)
	r := newRig(t, quick, cache.Config{})
	up := newUpstream(data)
	var once sync.Once
	stalled, giveUp := make(chan struct{}), make(chan struct{})
	up.hook = func(ctx context.Context, o *openedBody) error {
		err := error(nil)
		if o.pos >= 500_000 {
			once.Do(func() {
				close(stalled)
				<-giveUp
				err = errors.New("nothing came for 30s")
			})
		}
		return err
	}
	var group errgroup.Group
	for i := range 5 {
		group.Go(func() error { return r.check(t.Context(), data, up.by(fmt.Sprint(i)), 0, int64(len(data))) })
	}
	<-stalled
	// Who does not need what is stalled is served meanwhile.
	if err := r.check(t.Context(), data, up.by("b"), 0, 400_000); err != nil {
		t.Error(err)
	}
	eventually(t, "the others wait", func() bool { return r.group.Stats().Waiting >= 5 })
	close(giveUp)
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	up.cheap(t, int64(len(data)))
	r.settle(data)
}

// TestSlowReader has one that takes nothing while the others go on.
func TestSlowReader(t *testing.T) {
	data := random(4<<20, 22)
	r := newRig(t, quick, cache.Config{})
	up := newUpstream(data)
	rd, done := r.reader(t.Context(), describe(data), up.by("slow"), 0, int64(len(data)))
	defer done()
	first := make([]byte, 10)
	if _, err := io.ReadFull(rd, first); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := r.check(t.Context(), data, up.by(fmt.Sprint(i)), 0, int64(len(data))); err != nil {
			t.Fatal(err)
		}
	}
	rest, err := io.ReadAll(rd)
	if err != nil || !bytes.Equal(append(first, rest...), data) {
		t.Errorf("the slow one: %d bytes, %v", len(first)+len(rest), err)
	}
	up.cheap(t, int64(len(data)))
}

// TestStop ends the group while readers wait.
func TestStop(t *testing.T) {
	data := random(1<<20, 23)
	r := newRig(t, quick, cache.Config{})
	up := newUpstream(data)
	up.hook = func(ctx context.Context, o *openedBody) error {
		if o.pos >= 500_000 {
			<-ctx.Done()
		}
		return ctx.Err()
	}
	var group errgroup.Group
	for i := range 5 {
		group.Go(func() error {
			if err := r.check(t.Context(), data, up.by(fmt.Sprint(i)), 0, int64(len(data))); err == nil {
				return errors.New("a reader got everything of a part")
			}
			return nil
		})
	}
	eventually(t, "the readers wait", func() bool { return r.group.Stats().Waiting >= 5 })
	r.stop()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	if err := r.check(t.Context(), data, up.by("late"), 600_000, 1000); !errors.Is(err, fill.ErrStopped) {
		t.Errorf("reading what is not there after the end: %v", err)
	}
}
