package fill_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/fill"
)

func nothing(int64) <-chan struct{} { return nil }

// follow reads [off, end) as far as it comes.
func (r *rig) follow(ctx context.Context, data []byte, off, end int64, coming func(int64) <-chan struct{}) ([]byte, error) {
	r.t.Helper()
	x := r.hold(describe(data))
	defer x.Release()
	f := r.group.Follow(ctx, x, fill.Extent{Off: off, End: end}, coming)
	defer f.Close()
	return io.ReadAll(f)
}

// A follower gets what is there and has nothing fetched.
func TestFollowHeld(t *testing.T) {
	r := newRig(t, fill.Config{}, cache.Config{})
	data := random(3<<20, 1)
	up := newUpstream(data)
	if err := r.check(t.Context(), data, up.by("a"), 1<<20, 1<<20); err != nil {
		t.Fatal(err)
	}
	before := len(up.requests())
	got, err := r.follow(t.Context(), data, 1<<20+5, 3<<20, nothing)
	if err != nil || !bytes.Equal(got, data[1<<20+5:2<<20]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got, err := r.follow(t.Context(), data, 0, 3<<20, nothing); err != nil || len(got) > 0 {
		t.Errorf("%d bytes that are not there, %v", len(got), err)
	}
	if len(up.requests()) != before {
		t.Error("something was fetched")
	}
}

// A follower waits for what is on its way, as long as it is, and gets it as it comes.
func TestFollowComing(t *testing.T) {
	for name, breaks := range map[string]bool{"whole": false, "broken off": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, fill.Config{Attempts: 1}, cache.Config{})
			data := random(4<<20, 2)
			up := newUpstream(data)
			begun, proceed := make(chan struct{}), make(chan struct{})
			up.hook = func(ctx context.Context, o *openedBody) error {
				switch {
				case o.pos == 0:
					close(begun)
					<-proceed
				case breaks && o.pos >= 2<<20:
					return errors.New("the upstream broke off")
				}
				return ctx.Err()
			}
			over := make(chan struct{})
			fetched := make(chan error, 1)
			go func() {
				err := r.check(t.Context(), data, up.by("a"), 0, 4<<20)
				close(over)
				fetched <- err
			}()
			<-begun
			followed := make(chan []byte, 8)
			for i := range 8 {
				go func() {
					got, err := r.follow(t.Context(), data, int64(i)*1000, 4<<20, func(int64) <-chan struct{} {
						select {
						case <-over:
							return nil
						default:
							return over
						}
					})
					if err != nil {
						t.Error(err)
					}
					if !bytes.HasPrefix(data[i*1000:], got) {
						t.Error("wrong bytes")
					}
					followed <- got
				}()
			}
			close(proceed)
			if err := <-fetched; (err != nil) != breaks {
				t.Error(err)
			}
			for range 8 {
				got := <-followed
				if want := 4 << 20; !breaks && len(got) < want-8000 || breaks && (len(got) > 2<<20+piece || len(got) < 1<<20) {
					t.Errorf("%d bytes", len(got))
				}
			}
			if n := len(up.requests()); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// piece is how much of a body is stored at a time.
const piece = 256 << 10

// One that goes does not wait on, nor does anybody when the group ends.
func TestFollowCanceled(t *testing.T) {
	for name, end := range map[string]func(r *rig, cancel func()){
		"gone":    func(_ *rig, cancel func()) { cancel() },
		"stopped": func(r *rig, _ func()) { r.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, fill.Config{}, cache.Config{})
			data := random(1<<20, 3)
			up := newUpstream(data)
			begun := make(chan struct{})
			up.hook = func(ctx context.Context, _ *openedBody) error {
				close(begun)
				<-ctx.Done()
				return ctx.Err()
			}
			fetched := make(chan error, 1)
			go func() { fetched <- r.check(t.Context(), data, up.by("a"), 0, 1<<20) }()
			<-begun
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			waits := make(chan struct{}, 1)
			go func() {
				<-waits
				end(r, cancel)
			}()
			_, err := r.follow(ctx, data, 0, 1<<20, func(int64) <-chan struct{} {
				select {
				case waits <- struct{}{}:
				default:
				}
				return make(chan struct{})
			})
			// When the group ends, the fetch may be seen to end before that.
			if name == "gone" && !errors.Is(err, context.Canceled) || name == "stopped" && err != nil && !errors.Is(err, fill.ErrStopped) {
				t.Errorf("%v", err)
			}
			r.stop()
			<-fetched
		})
	}
}

// What goes past the cache is no reason to wait.
func TestFollowNothingStored(t *testing.T) {
	r := newRig(t, fill.Config{}, cache.Config{})
	data := random(1<<20, 4)
	got, err := r.follow(t.Context(), data, 0, 1<<20, func(int64) <-chan struct{} { return make(chan struct{}) })
	if err != nil || len(got) > 0 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
