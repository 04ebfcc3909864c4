package sharedindex_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
)

const stream = "test:{events}:stream"

// following is a Follow that runs.
type following struct {
	t    testing.TB
	news chan sharedindex.Announcement
	end  func()
	last string
}

func follow(t testing.TB, x *sharedindex.Index, after string) *following {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	fo := &following{t: t, news: make(chan sharedindex.Announcement, 10000)}
	done := make(chan error, 1)
	go func() {
		done <- x.Follow(ctx, after, func(a sharedindex.Announcement) { fo.news <- a })
	}()
	ended := false
	fo.end = func() {
		cancel()
		if ended {
			return
		}
		ended = true
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Follow: %v", err)
		}
	}
	t.Cleanup(fo.end)
	return fo
}

func (fo *following) next() sharedindex.Announcement {
	fo.t.Helper()
	select {
	case a := <-fo.news:
		fo.last = a.ID
		return a
	case <-time.After(time.Minute):
		fo.t.Fatal("no announcement comes")
		return sharedindex.Announcement{}
	}
}

func (fo *following) want(payloads ...string) {
	fo.t.Helper()
	for _, p := range payloads {
		if a := fo.next(); a.Missed || string(a.Payload) != p || a.Replica != "a:1" {
			fo.t.Fatalf("announcement %+v %q, not %q", a, a.Payload, p)
		}
	}
}

func (fo *following) wantMissed() {
	fo.t.Helper()
	if a := fo.next(); !a.Missed || a.Payload != nil || a.Replica != "" {
		fo.t.Fatalf("announcement %+v %q, not that some were missed", a, a.Payload)
	}
}

// started announces until a follower that began at the end of the stream sees it.
func (fo *following) started(x *sharedindex.Index) {
	fo.t.Helper()
	for i := 0; len(fo.news) == 0; i++ {
		must(fo.t, x.Announce(fo.t.Context(), []byte("start")))
		time.Sleep(5 * time.Millisecond)
	}
	// All of them have come when the last one has.
	must(fo.t, x.Announce(fo.t.Context(), []byte("started")))
	for {
		if a := fo.next(); a.Missed {
			fo.t.Fatal("some were missed at the start")
		} else if string(a.Payload) == "started" {
			return
		}
	}
}

func announce(t testing.TB, x *sharedindex.Index, payloads ...string) {
	t.Helper()
	for _, p := range payloads {
		must(t, x.Announce(t.Context(), []byte(p)))
	}
}

func TestAnnouncements(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		for name, f := range map[string]func(*testing.T, world){
			"in order": inOrder, "trimmed": trimmed, "lost": lost, "lost while away": lostWhileAway,
			"rolled back": rolledBack, "nothing there": nothingThere, "from the tail": fromTail, "astray": astray,
			"of a stranger": ofAStranger,
		} {
			t.Run(name, func(t *testing.T) {
				w.empty(t)
				f(t, w)
			})
		}
	})
}

func inOrder(t *testing.T, w world) {
	a := w.replica(t, "a:1")
	fo := follow(t, w.replica(t, "b:1"), "")
	fo.started(a)
	announce(t, a, "one", "", "a \x00 b", "two")
	fo.want("one", "", "a \x00 b", "two")
	fo.end()
	// Who was away reads on where it was.
	announce(t, a, "three", "four")
	fo = follow(t, w.replica(t, "b:1"), fo.last)
	fo.want("three", "four")
	announce(t, a, "five")
	fo.want("five")
	if a.Announce(t.Context(), make([]byte, sharedindex.MaxPayload+1)) == nil {
		t.Error("a payload that is too long was announced")
	}
}

// fromTail: all that is announced after Tail is told by who follows from there, with
// nothing missed, whatever was there before.
func fromTail(t *testing.T, w world) {
	a, admin := w.replica(t, "a:1"), w.client(t)
	tail := func() string {
		t.Helper()
		id, err := a.Tail(t.Context())
		must(t, err)
		return id
	}
	never := tail()
	announce(t, a, "one")
	one := tail()
	announce(t, a, "two")
	follow(t, a, never).want("one", "two")
	follow(t, a, one).want("two")
	must(t, admin.XTrimMaxLen(t.Context(), stream, 0).Err())
	emptied := tail()
	fo := follow(t, a, emptied)
	announce(t, a, "three", "four")
	fo.want("three", "four")
	follow(t, a, emptied).want("three", "four")
}

// astray: who follows from what is no ID is told that some are missed, once, and then all
// that comes; also if nothing was announced yet.
func astray(t *testing.T, w world) {
	a := w.replica(t, "a:1")
	for _, before := range [][]string{nil, {"zero"}} {
		announce(t, a, before...)
		for _, id := range []string{"12", "5-7", "5-7/x", "\x00\xff", " "} {
			fo := follow(t, w.replica(t, "b:1"), id)
			fo.wantMissed()
			again := follow(t, a, fo.last)
			announce(t, a, "one", "two")
			fo.want("one", "two")
			again.want("one", "two")
			fo.end()
			again.end()
		}
	}
}

func trimmed(t *testing.T, w world) {
	a, admin := w.replica(t, "a:1"), w.client(t)
	fo := follow(t, a, "")
	fo.started(a)
	fo.end()
	announce(t, a, "one", "two", "three")
	must(t, admin.XTrimMaxLen(t.Context(), stream, 1).Err())
	again := follow(t, a, fo.last)
	again.wantMissed()
	// Who goes on from there misses nothing more.
	fo = follow(t, a, again.last)
	fo.want("three")
	again.want("three")
	announce(t, a, "four")
	again.want("four")
	// What is kept is bounded.
	c := w.config("a:1")
	c.MaxEvents = 10
	few := open(t, c)
	for i := range 1000 {
		announce(t, few, fmt.Sprint(i))
	}
	if n, err := admin.XLen(t.Context(), stream).Result(); err != nil || n > 200 {
		t.Errorf("%d announcements are kept, %v", n, err)
	}
}

func lost(t *testing.T, w world) {
	a := w.replica(t, "a:1")
	fo := follow(t, w.replica(t, "b:1"), "")
	fo.started(a)
	w.empty(t)
	fo.wantMissed()
	announce(t, a, "one", "two")
	fo.want("one", "two")
}

// laterByClock returns in another millisecond. What is announced in the one in which Redis
// lost the last announcement may be among those that are missed.
func laterByClock() { time.Sleep(2 * time.Millisecond) }

func lostWhileAway(t *testing.T, w world) {
	a := w.replica(t, "a:1")
	fo := follow(t, a, "")
	fo.started(a)
	fo.end()
	w.empty(t)
	laterByClock()
	announce(t, a, "one", "two")
	fo = follow(t, a, fo.last)
	fo.wantMissed()
	fo.want("one", "two")
}

// rolledBack: Redis came back with an older state, and others announced since, as many
// as were lost.
func rolledBack(t *testing.T, w world) {
	a, admin := w.replica(t, "a:1"), w.client(t)
	fo := follow(t, a, "")
	fo.started(a)
	announce(t, a, "lost", "lost too")
	fo.want("lost", "lost too")
	fo.end()
	entries, err := admin.XRevRangeN(t.Context(), stream, "+", "-", 2).Result()
	must(t, err)
	// The IDs that the state had which came back: an older stream.
	old, err := admin.XRange(t.Context(), stream, "-", "("+entries[1].ID).Result()
	must(t, err)
	must(t, admin.Del(t.Context(), stream).Err())
	for _, m := range old {
		must(t, admin.XAdd(t.Context(), &redis.XAddArgs{Stream: stream, ID: m.ID, Values: m.Values}).Err())
	}
	laterByClock()
	announce(t, a, "one", "two", "three")
	fo = follow(t, a, fo.last)
	fo.wantMissed()
	fo.want("one", "two", "three")
}

// nothingThere: who follows from now on, where nothing was announced yet, sees the first
// one.
func nothingThere(t *testing.T, w world) {
	a := w.replica(t, "a:1")
	fo := follow(t, a, "")
	eventually(t, func() error {
		if a.Stats().Ops["follow"] < 2 {
			return errors.New("it has not asked yet")
		}
		return nil
	})
	announce(t, a, "one", "two")
	fo.want("one", "two")
}

// ofAStranger: what no replica wrote counts as missed, once, and what comes after it is
// read.
func ofAStranger(t *testing.T, w world) {
	a, admin := w.replica(t, "a:1"), w.client(t)
	fo := follow(t, a, "")
	fo.started(a)
	must(t, admin.XAdd(t.Context(), &redis.XAddArgs{Stream: stream, Values: map[string]any{"x": "y"}}).Err())
	fo.wantMissed()
	announce(t, a, "one", "two")
	fo.want("one", "two")
}

// TestFollowThroughRestart: a follower waits while Redis is away, and says that what it
// lost was missed.
func TestFollowThroughRestart(t *testing.T) {
	w := standalone(t)
	a := w.replica(t, "a:1")
	run(t, a)
	fo := follow(t, w.replica(t, "b:1"), "")
	fo.started(a)
	w.servers[0].Kill()
	must(t, w.servers[0].Start(t.Context()))
	eventually(t, func() error { return a.Announce(t.Context(), []byte("one")) })
	fo.wantMissed()
	fo.want("one")
}
